package shared

import "context"

// Op is an operation of a pool that takes time.
type Op string

// The operations that a Tracer sees.
const (
	OpWait Op = "wait" // a caller waits for a connection; not reported if it need not wait
	OpDial Op = "dial" // the factory's NewConnection
	OpTest Op = "test" // the factory's ConnectionOk
)

// Tracer sees the operations of a pool begin and end. Start is called when one begins,
// and end when it is over, with its error. ctx has the values of the context of the
// caller that caused the operation; other callers may share its result. Operations
// that the pool begins by itself have a context without values. The context that Start
// returns is passed to the factory. Start and end may be called concurrently. The pool
// holds no lock while it calls them.
type Tracer interface {
	Start(ctx context.Context, pool string, op Op) (_ context.Context, end func(error))
}

// trace reports the begin of an operation to the tracer, if there is one.
func (p *Pool) trace(ctx context.Context, op Op) (_ context.Context, end func(error)) {
	if p.cfg.tracer == nil {
		return ctx, func(error) {}
	}
	return p.cfg.tracer.Start(ctx, p.cfg.name, op)
}
