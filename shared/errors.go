package shared

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
)

var errNoFactory = fmt.Errorf("%w: shared.New was given a nil ConnectionFactory", grpcpool.ErrConnectionNotOK)

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

// GRPCStatus is what an RPC whose context ends gets from grpc-go too.
func (e *waitError) GRPCStatus() *status.Status {
	return status.New(status.FromContextError(e.end).Code(), e.Error())
}

// notOK makes an error of a factory one that answers for ErrConnectionNotOK.
func notOK(err error) error {
	if errors.Is(err, grpcpool.ErrConnectionNotOK) || errors.Is(err, grpcpool.ErrClosed) {
		return err
	}
	return fmt.Errorf("%w: %w", grpcpool.ErrConnectionNotOK, err)
}
