package shared

import (
	"context"
	"errors"
	"time"
)

// Hooks are functions that a pool calls. Each may be nil; a nil one costs nothing. The
// pool holds no lock while it calls one. A hook must not close the pool.
type Hooks struct {
	// Event is called for every event: in order, one at a time, on a goroutine of the
	// pool. A slow Event delays later events, and Close for as long as Close waits. When
	// it is 1024 events behind, the oldest are dropped. The last event is EventShutdown.
	Event func(Event)

	// Waited is called by each caller that had to wait for a connection, when the wait
	// is over. err is nil if the caller got a connection. It may be called concurrently.
	Waited func(took time.Duration, err error)

	// Used is called when a lease ends, of Get or of an RPC made on the pool. took is
	// how long it was out. It may be called concurrently. Get and Return read the clock
	// only if a pool has such a hook.
	Used func(took time.Duration)
}

// WithEvents makes the pool call f for each of its events; see Hooks.Event. It may be
// given several times. f must not be nil.
func WithEvents(f func(Event)) Option {
	return func(cfg *config) {
		if f == nil {
			cfg.mistake("WithEvents(nil): leave the option out")
			return
		}
		cfg.attach = append(cfg.attach, func(*Pool) Hooks { return Hooks{Event: f} })
	}
}

// WithHooks makes New call attach with the pool that it makes, and the pool call the
// hooks that attach returns. It may be given several times. attach must not be nil; the
// hooks in what it returns may be.
func WithHooks(attach func(*Pool) Hooks) Option {
	return func(cfg *config) {
		if attach == nil {
			cfg.mistake("WithHooks(nil): leave the option out")
			return
		}
		cfg.attach = append(cfg.attach, attach)
	}
}

// hooks are the functions of all Hooks of a pool.
type hooks struct {
	event  []func(Event)
	waited []func(time.Duration, error)
	used   []func(time.Duration)
}

func (h *hooks) add(one Hooks) {
	if one.Event != nil {
		h.event = append(h.event, one.Event)
	}
	if one.Waited != nil {
		h.waited = append(h.waited, one.Waited)
	}
	if one.Used != nil {
		h.used = append(h.used, one.Used)
	}
}

// noteWait is called by a caller whose wait is over. It began at start.
func (p *Pool) noteWait(start time.Duration, err error) {
	took := p.now() - start
	for _, hook := range p.hooks.waited {
		hook(took, err)
	}
	var late *waitError
	if errors.As(err, &late) && !errors.Is(late.end, context.Canceled) {
		p.counts.timedOut.Add(1)
		p.emit(Event{Kind: EventWaitedTooLong, Took: took, Text: err.Error()})
	}
}

// noteUse is called when a lease ends that began at start. The caller checks that
// there is a hook for it.
func (p *Pool) noteUse(start time.Duration) {
	took := p.now() - start
	for _, hook := range p.hooks.used {
		hook(took)
	}
}
