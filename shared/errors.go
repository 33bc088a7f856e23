package shared

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
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

// asNotOK makes an error of the factory match ErrConnectionNotOK.
func asNotOK(err error) error {
	if errors.Is(err, grpcpool.ErrConnectionNotOK) || errors.Is(err, grpcpool.ErrClosed) {
		return err
	}
	return fmt.Errorf("%w: %w", grpcpool.ErrConnectionNotOK, err)
}
