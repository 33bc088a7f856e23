package grpcpool

import (
	"context"
	"errors"
	"time"
)

// backGrace is how much earlier the context of a call ends than the wait for it. What
// heeds its context comes back in that time, with an error that says more than that it
// is late.
const backGrace = 100 * time.Millisecond

// bounded calls what may never come back: a file on a file system that hangs holds
// its reader in the kernel, and a function of the program's may ignore its context. It
// is called on a goroutine of its own, and not again until it has come back, so there
// is one such goroutine at most. Its methods are for the one check at a time of a
// rotation.
type bounded[T any] struct {
	call loadFunc[T]
	late func(after time.Duration, cause error) error // says what has not come back, and may be called while call runs; nil: call cannot hang

	back  chan struct{} // closed when the last call has come back; nil: there was none
	begun time.Time     // of the last call
}

// loadFunc returns the newest, or errSettling when there is one that may not be whole
// yet. It takes what has been there for the time settled.
type loadFunc[T any] func(ctx context.Context, settled time.Duration) (T, error)

// load returns what call returns, and waits no longer than ctx. What comes later is
// dropped: it may be out of date when the next check wants it.
func (b *bounded[T]) load(ctx context.Context, settled time.Duration) (T, error) {
	if b.late == nil {
		return b.call(ctx, settled)
	}
	var result, none T
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	if err := b.wait(ctx); err != nil {
		return none, err
	}
	err := errors.New("the program's source ended its goroutine")
	back := make(chan struct{})
	b.back, b.begun = back, time.Now()
	inner, cancel := ctx, context.CancelFunc(func() {})
	if end, ok := ctx.Deadline(); ok {
		inner, cancel = context.WithDeadline(ctx, end.Add(-backGrace))
	}
	go func() {
		defer close(back)
		defer cancel()
		result, err = b.call(inner, settled)
	}()
	if late := b.wait(ctx); late != nil {
		return none, late
	}
	return result, err
}

// wait waits until the last call has come back, or says what has not when ctx ends.
func (b *bounded[T]) wait(ctx context.Context) error {
	if b.back == nil {
		return nil
	}
	select {
	case <-b.back:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-b.back:
		return nil
	default:
		return b.late(time.Since(b.begun).Round(time.Millisecond), context.Cause(ctx))
	}
}
