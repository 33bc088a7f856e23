package shared

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// overdue is how long a call of the factory may go on after its context has
	// ended. One that heeds its context needs a moment; one that does not is left
	// alone after that, and the pool goes on without it.
	overdue = 500 * time.Millisecond

	// maxStuck bounds the calls that are left alone. Beyond it the factory is not
	// asked any more, until one of them has returned.
	maxStuck = 8

	// closeGrace is how long Close waits for what it has ended.
	closeGrace = time.Second
)

// stuckError says that a call of the factory's did not return with its context.
type stuckError struct {
	what  string
	end   error // of the context
	calls int64 // that are stuck now, this one included
}

func (e *stuckError) Error() string {
	return fmt.Sprintf("grpcpool: %s has not returned though its context has ended (%v), which it must; the pool goes on without it (%d such calls are running)", e.what, e.end, e.calls)
}

func (e *stuckError) Unwrap() error { return e.end }

// What a pool asks of its factory.
const (
	callOfTest = "the factory's ConnectionOk, or the PingFunc that it calls,"
	callOfDial = "the factory's NewConnection, or the PingFunc that it calls,"
)

// outside runs f, which is the program's code, and waits until it returns. If it
// goes on though ctx has ended, outside leaves it alone and returns a *stuckError;
// while the pool is being closed, only when the drain timeout has passed, so that
// Close waits for what comes late. late runs when f returns after all.
func (p *Pool) outside(ctx context.Context, what string, f, late func()) error {
	if n := p.counts.stuck.Load(); n >= maxStuck {
		return fmt.Errorf("grpcpool: %d calls of the factory have not returned though their contexts have ended; it is not asked before one does", n)
	}
	var settled atomic.Bool // by whoever is first: f has returned, or is left alone
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
	timer := time.NewTimer(overdue)
	defer timer.Stop()
	select {
	case <-over:
		return nil
	case <-timer.C:
	}
	if p.ctx.Err() != nil { // Close is waiting: as long as it does there is time
		select {
		case <-over:
			return nil
		case <-p.impatient:
		}
	}
	stuck := p.counts.stuck.Add(1) // before f can find out
	if !settled.CompareAndSwap(false, true) {
		p.counts.stuck.Add(-1)
		return nil
	}
	err := &stuckError{what: what, end: ctx.Err(), calls: stuck}
	p.emit(Event{Kind: EventStuck, Text: err.Error()})
	return err
}

// stuckText is what is left of the calls of the factory, or "".
func (p *Pool) stuckText() string {
	if n := p.counts.stuck.Load(); n > 0 {
		return fmt.Sprintf("calls of the factory that ignore the end of their context: %d", n)
	}
	return ""
}

// leftOver is an error that says what goes on after the pool is closed, or nil.
func (p *Pool) leftOver() error {
	if text := p.stuckText(); text != "" {
		return fmt.Errorf("grpcpool: the pool is closed; still running: %s", text)
	}
	return nil
}

// giveUp is Close when what it has ended goes on: it tells what that is, in the
// last event and in its error, and leaves it alone.
func (p *Pool) giveUp(why error) error {
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
		p.live++ // for the telling of the last event
	}
	p.mu.Unlock()
	if text := p.stuckText(); text != "" {
		left = append(left, text)
	}
	if p.events.busy() {
		left = append(left, "an event hook, or the log's handler")
	}
	if len(left) == 0 {
		left = append(left, "a goroutine of the pool's, in the program's code")
	}
	text := "still running: " + strings.Join(left, ", ")
	if !ended {
		p.tellLast(text)
	}
	return fmt.Errorf("%w; %s", why, text)
}

// tellLast tells the last event, and waits a moment until it is told. The hooks and
// the log are the program's code too.
func (p *Pool) tellLast(text string) {
	told := make(chan struct{})
	go func() {
		defer close(told)
		p.emit(Event{Kind: EventShutdown, Text: text})
		p.events.wait(overdue)
		p.finished()
	}()
	timer := time.NewTimer(overdue)
	defer timer.Stop()
	select {
	case <-told:
	case <-timer.C:
	}
}
