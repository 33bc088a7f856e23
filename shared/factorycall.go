package shared

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// stuckAfter is how long a call of the factory may run after its context has ended.
	// A call that heeds its context needs a moment. After stuckAfter the pool goes on
	// without the call.
	stuckAfter = 500 * time.Millisecond

	// maxStuck is how many such calls there may be. The factory is not called again
	// before one of them has returned.
	maxStuck = 8

	// closeGrace is how long Close waits for what it has ended.
	closeGrace = time.Second
)

// stuckError says that a call of the factory did not return when its context ended.
type stuckError struct {
	call  string
	end   error // of the context
	stuck int64 // calls that are stuck now, including this one
}

func (e *stuckError) Error() string {
	return fmt.Sprintf("grpcpool: %s has not returned though its context has ended (%v); the pool goes on without it (%s stuck); make it return when its context ends",
		e.call, e.end, plural(int(e.stuck), "call"))
}

func (e *stuckError) Unwrap() error { return e.end }

// The calls of the factory, as errors name them.
const (
	testCall = "the factory's ConnectionOk, or the PingFunc that it calls,"
	dialCall = "the factory's NewConnection, or the PingFunc that it calls,"

	connectCall = "the factory's Connect, or the PingFunc that it calls,"
)

// notAskedError says that the factory was not called, as so many calls of it are stuck.
type notAskedError int64

func (e notAskedError) Error() string {
	return fmt.Sprintf("grpcpool: %d calls of the factory have not returned though their contexts have ended; it is not called again before one of them returns", int64(e))
}

// ReachedServer is heeded by reachedServer.
func (notAskedError) ReachedServer() bool { return false }

// callFactory runs f, which calls the program's code, and waits until it returns. If f
// still runs stuckAfter after ctx has ended, callFactory returns a *stuckError and leaves
// f running. While the pool is being closed it does so only after the drain timeout, so
// that Close waits for a channel that comes late. late runs if f returns after all.
func (p *Pool) callFactory(ctx context.Context, call string, f, late func()) error {
	if n := p.counts.stuck.Load(); n >= maxStuck {
		return notAskedError(n)
	}
	var settled atomic.Bool // set by whichever is first: f returns, or it is left running
	over := make(chan struct{})
	go func() {
		f()
		if settled.CompareAndSwap(false, true) {
			close(over)
			return
		}
		late()
		p.counts.stuck.Add(-1)
	}()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
	}
	timer := time.NewTimer(stuckAfter)
	defer timer.Stop()
	select {
	case <-over:
		return nil
	case <-timer.C:
	}
	if p.ctx.Err() != nil { // Close is waiting, and has time until the drain timeout
		select {
		case <-over:
			return nil
		case <-p.drainTimedOut:
		}
	}
	stuck := p.counts.stuck.Add(1) // before f can see that it was left running
	if !settled.CompareAndSwap(false, true) {
		p.counts.stuck.Add(-1)
		return nil
	}
	err := &stuckError{call: call, end: ctx.Err(), stuck: stuck}
	p.emit(Event{Kind: EventStuck, Text: err.Error()})
	return err
}

// describeStuck says how many calls of the factory are stuck, or "" if none is.
func (p *Pool) describeStuck() string {
	if n := p.counts.stuck.Load(); n > 0 {
		return fmt.Sprintf("calls of the factory that did not return when their context ended: %d", n)
	}
	return ""
}

// errStillRunning says what still runs after the pool is closed. It is nil if nothing
// does.
func (p *Pool) errStillRunning() error {
	if text := p.describeStuck(); text != "" {
		return fmt.Errorf("grpcpool: the pool is closed; still running: %s", text)
	}
	return nil
}

// abandon is the end of a Close that has waited long enough: it says what still runs,
// in the last event and in its error, and leaves that running.
func (p *Pool) abandon(why error) error {
	p.mu.Lock()
	var left []string
	if p.attempt != nil {
		left = append(left, "a test or a dial")
	}
	if n := len(p.open); n > 0 {
		left = append(left, fmt.Sprintf("the closing of channels: %d", n))
	}
	ended := p.ended
	p.ended = true
	if !ended {
		p.live++ // for the last event
	}
	p.mu.Unlock()
	if text := p.describeStuck(); text != "" {
		left = append(left, text)
	}
	if p.events.Delivering() {
		left = append(left, "an event hook, or the log's handler")
	}
	if len(left) == 0 {
		left = append(left, "a goroutine of the pool that called the program's code")
	}
	text := "still running: " + strings.Join(left, ", ")
	if !ended {
		p.reportAbandoned(text)
	}
	return fmt.Errorf("%w; %s", why, text)
}

// reportAbandoned reports the last event, and waits a moment for its delivery. It waits
// no longer, since hooks and the log's handler are the program's code too.
func (p *Pool) reportAbandoned(text string) {
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		p.emit(Event{Kind: EventShutdown, Text: text})
		p.events.Wait(stuckAfter)
		p.finished()
	}()
	timer := time.NewTimer(stuckAfter)
	defer timer.Stop()
	select {
	case <-reported:
	case <-timer.C:
	}
}
