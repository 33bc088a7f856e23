package identity

import (
	"context"
	"errors"
	"time"
)

// backGrace is how much earlier the context of a call ends than the wait for it. A call
// that respects its context returns in that time, with an error that says more than that
// it is late.
const backGrace = 100 * time.Millisecond

// bounded calls a function that may never return: a read from a file system that hangs
// blocks in the kernel, and a function of the program's may ignore its context. It is
// called on a goroutine of its own, and not again until it has returned, so there is at
// most one such goroutine. The methods of bounded are called one at a time, by a
// provider's check.
type bounded[T any] struct {
	call loadFunc[T]
	late func(after time.Duration, cause error) error // the error of a call that has not returned; may be called while call runs; nil: call cannot hang

	back  chan struct{} // closed when the last call has returned; nil: there was none
	begun time.Time     // of the last call
}

// loadFunc returns the newest, or errSettling if the newest may be incomplete. What has
// not changed for the time settled is complete.
type loadFunc[T any] func(ctx context.Context, settled time.Duration) (T, error)

// load returns what call returns, and waits no longer than ctx. A later result is
// dropped: it may be out of date when the next check asks.
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
	err := errors.New("the source ended its goroutine (runtime.Goexit)")
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

// wait waits until the last call has returned. The error says that it had not when ctx
// ended.
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
