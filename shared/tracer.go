package shared

import "context"

// Op is something that takes time in a pool.
type Op string

// What a Tracer is told of.
const (
	OpWait Op = "wait" // a caller waits for a connection; not told when it need not
	OpDial Op = "dial" // the factory's NewConnection
	OpTest Op = "test" // the factory's ConnectionOk
)

// Tracer is told when the pool begins and ends something on behalf of a caller.
// ctx carries the values of the caller that began it; others may share the
// result, and work that the watchdog begins carries none. What Start returns as a
// context goes on to the factory. Both funcs may be called concurrently and never
// under a lock of the pool.
type Tracer interface {
	Start(ctx context.Context, pool string, op Op) (_ context.Context, end func(error))
}

// begin tells the tracer, if there is one.
func (p *Pool) begin(ctx context.Context, op Op) (_ context.Context, end func(error)) {
	if p.cfg.tracer == nil {
		return ctx, func(error) {}
	}
	return p.cfg.tracer.Start(ctx, p.cfg.name, op)
}
