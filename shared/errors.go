package shared

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/internal/reason"
)

// misuseError names the mistakes in the arguments of New. It matches
// grpcpool.ErrConnectionNotOK, as there will be no connection. Its code is not
// Unavailable but FailedPrecondition: the program has to change before a retry can
// help.
type misuseError struct{ mistakes []string }

func (e *misuseError) Error() string {
	return "grpcpool: shared.New: " + strings.Join(e.mistakes, "; ")
}

func (*misuseError) Is(target error) bool { return target == grpcpool.ErrConnectionNotOK }

func (e *misuseError) GRPCStatus() *status.Status {
	return status.New(codes.FailedPrecondition, e.Error())
}

// waitError says that a caller's context ended before there was a connection.
type waitError struct {
	pool string
	end  error // ctx.Err()
	why  error // context.Cause
	last error // of the pool's last dial, if that failed
}

func newWaitError(ctx context.Context, pool string, last error) error {
	return &waitError{pool: pool, end: ctx.Err(), why: context.Cause(ctx), last: last}
}

func (e *waitError) Error() string {
	text := "grpcpool: waiting for a connection"
	if e.pool != "" {
		text += fmt.Sprintf(" of pool %q", e.pool)
	}
	text += ": " + e.why.Error()
	if e.last != nil {
		text += " (last error: " + e.last.Error() + ")"
	}
	return text
}

func (e *waitError) Unwrap() []error {
	errs := []error{e.end, e.why}
	if e.last != nil {
		errs = append(errs, e.last)
	}
	return errs
}

// GRPCStatus is the status that grpc-go gives an RPC whose context ends.
func (e *waitError) GRPCStatus() *status.Status {
	return status.New(status.FromContextError(e.end).Code(), e.Error())
}

// callError is the error of an RPC that has ended while its channel had no connection.
type callError struct {
	target string
	away   time.Duration // for how long there has been no connection; 0: it is not known
	rpc    error         // gRPC's
	ends   []error       // of the context, if it has ended
}

// explain adds to the error of an RPC on c what the pool knows better than gRPC. code is the
// error's.
func (c *channel) explain(ctx context.Context, err error, code codes.Code) error {
	p := c.pool
	if err == nil || p.channels == nil {
		return err
	}
	c.seekOther()
	seen, now := c.connections.Load(), c.conn.GetState()
	switch code {
	case codes.Canceled:
		if p.ctx.Err() != nil && ctx.Err() == nil && now == connectivity.Shutdown {
			return &closedCallError{err}
		}
		return err
	case codes.Unavailable, codes.DeadlineExceeded:
		if now != connectivity.TransientFailure && now != connectivity.Connecting {
			return err // the server's answer, or an interceptor's
		}
	default:
		return err
	}
	if now == connectivity.TransientFailure || code == codes.DeadlineExceeded {
		p.noteAway(c, err, seen) // otherwise the call ended with its connection, and another is being dialled
	}
	e := &callError{target: c.conn.Target(), rpc: err}
	if since := time.Duration(c.awaySince.Load()); since > 0 {
		e.away = p.now() - since
	}
	if ctx.Err() != nil {
		e.ends = []error{ctx.Err(), context.Cause(ctx)}
	}
	return e
}

func (e *callError) Error() string {
	return fmt.Sprintf("grpcpool: calling %q, %s: %s", e.target, e.describe(), reason.OneLine(e.rpc.Error()))
}

func (e *callError) describe() string {
	if e.away < time.Millisecond {
		return "to which there is no connection"
	}
	round := time.Second
	if e.away < 10*time.Second {
		round = time.Millisecond
	}
	return fmt.Sprintf("to which there has been no connection for %v", e.away.Round(round))
}

func (e *callError) Unwrap() []error { return append([]error{e.rpc}, e.ends...) }

func (*callError) Is(target error) bool { return target == grpcpool.ErrConnectionNotOK }

// GRPCStatus is gRPC's, with its code, details and words, and the pool's after them.
func (e *callError) GRPCStatus() *status.Status {
	s := status.Convert(e.rpc).Proto()
	s.Message += fmt.Sprintf(" (grpcpool: calling %q, %s)", e.target, e.describe())
	return status.FromProto(s)
}

// closedCallError is the error of an RPC that has ended as the pool is closed.
type closedCallError struct{ rpc error }

func (e *closedCallError) Error() string {
	return grpcpool.ErrClosed.Error() + ": " + e.rpc.Error()
}

func (e *closedCallError) Unwrap() []error            { return []error{grpcpool.ErrClosed, e.rpc} }
func (e *closedCallError) GRPCStatus() *status.Status { return status.Convert(e.rpc) }

// asNotOK makes an error of the factory match ErrConnectionNotOK.
func asNotOK(err error) error {
	if errors.Is(err, grpcpool.ErrConnectionNotOK) || errors.Is(err, grpcpool.ErrClosed) {
		return err
	}
	return fmt.Errorf("%w: %w", grpcpool.ErrConnectionNotOK, err)
}
