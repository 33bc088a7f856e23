package shared

import (
	"context"
	"errors"
	"time"
)

// Hooks are told what happens in a pool. Each may be nil, and costs nothing then.
// None is called under a lock of the pool, and none may close the pool.
type Hooks struct {
	// Event is called for every event: in order, one at a time, on a goroutine of
	// the pool. A slow one delays the events after it, and Close, for as long as Close
	// waits; when it falls a thousand events behind the oldest are dropped. The last is
	// EventShutdown.
	Event func(Event)

	// Waited is called by every caller that had to wait for a connection, after it
	// has waited. err is what it got instead of one, or nil. It may be called
	// concurrently.
	Waited func(took time.Duration, err error)

	// Used is called when a lease ends that was out for the given time: one of Get,
	// or of an RPC made on the pool. It may be called concurrently. With it, Get and
	// Return read the clock.
	Used func(took time.Duration)
}

// WithEvents has f called for every event of the pool; see Hooks.Event. It may be
// given several times. A nil f does nothing.
func WithEvents(f func(Event)) Option {
	return WithHooks(func(*Pool) Hooks { return Hooks{Event: f} })
}

// WithHooks has attach called by New with the pool that it makes, and what attach
// returns told from there on. It may be given several times. A nil attach does
// nothing.
func WithHooks(attach func(*Pool) Hooks) Option {
	return func(cfg *config) {
		if attach != nil {
			cfg.attach = append(cfg.attach, attach)
		}
	}
}

// hooks are all Hooks of a pool by what they are told.
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

// waited is called by a caller who began to wait at start, when it has ended.
func (p *Pool) waited(start time.Duration, err error) {
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

// used is called when a lease ends that began at start. Without a hook it is not
// called.
func (p *Pool) used(start time.Duration) {
	took := p.now() - start
	for _, hook := range p.hooks.used {
		hook(took)
	}
}
