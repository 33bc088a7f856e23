package scale

import (
	"errors"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// Replacer has channels replace their connections, for instance when the
// identity that they were made with is no longer the one to show. Its zero value
// is ready for use in any number of channels. A channel is put under it by
// [WithReplacer], or by transport credentials that have a method
//
//	Replacer() *scale.Replacer
//
// as those of package identity have. A Replacer holds nothing of a channel that is
// idle or closed. Its methods may be called concurrently.
type Replacer struct {
	mu       sync.Mutex // guards what follows
	policies map[*policy]struct{}
	onUse    func() // may be nil
}

// WithReplacer puts the connections of the channel under r. A nil r is an error of
// [NewClient].
func WithReplacer(r *Replacer) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if r == nil {
			return errors.New("scale: WithReplacer(nil): want a Replacer")
		}
		o.replacers = append(o.replacers, r)
		return nil
	})
}

// OnUse has f called when the first channel under r becomes active and when the last
// one has gone idle or has been closed; call it before there are channels. Calls of f
// may overlap and come late, so f asks [Replacer.InUse]. f is called without a lock,
// on a goroutine of gRPC's that must not wait.
func (r *Replacer) OnUse(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onUse = f
}

// InUse reports whether a channel under r is active, which is neither idle nor closed.
func (r *Replacer) InUse() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.policies) > 0
}

// Subchannels are those of every active channel under r, copied one at a time.
func (r *Replacer) Subchannels() iter.Seq[Subchannel] {
	return func(yield func(Subchannel) bool) {
		for _, p := range r.active() {
			for _, s := range p.subchannels() {
				if !yield(s.snapshot()) {
					return
				}
			}
		}
	}
}

// Replace has every connection that there is now, or that is being dialled, make
// way for a new one within the given time: at a random moment of its first half,
// so that not all of them are dialled at once. The successor is dialled first. When
// it has answered a question (where probes are on), new calls go there, and the old
// connection is closed when its last stream has ended, however long that takes. If
// the successor cannot be had, the old connection stays in use and the dial is tried
// again. why goes into events and is one line. Replace does not wait.
func (r *Replacer) Replace(why string, within time.Duration) {
	for _, p := range r.active() {
		for _, s := range p.subchannels() {
			s.replaceAll(why, within)
		}
	}
}

func (r *Replacer) active() []*policy {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.policies))
}

func (r *Replacer) add(p *policy) {
	r.mu.Lock()
	if r.policies == nil {
		r.policies = make(map[*policy]struct{})
	}
	first := len(r.policies) == 0
	r.policies[p] = struct{}{}
	onUse := r.onUse
	r.mu.Unlock()
	if first && onUse != nil {
		onUse()
	}
}

func (r *Replacer) remove(p *policy) {
	r.mu.Lock()
	before := len(r.policies)
	delete(r.policies, p)
	last := before > 0 && len(r.policies) == 0
	onUse := r.onUse
	r.mu.Unlock()
	if last && onUse != nil {
		onUse()
	}
}

// replacers are what the policy's connections are under: of the dial options, and of
// the channel's credentials.
func (p *policy) replacers() []*Replacer {
	if creds, ok := p.opts.DialCreds.(interface{ Replacer() *Replacer }); ok {
		if r := creds.Replacer(); r != nil {
			return append(slices.Clone(p.channel.replacers), r)
		}
	}
	return p.channel.replacers
}

// A connection is replaced by dialling its successor first. When that has answered
// (see succession.go) it takes the new calls, and the old connection is left to
// gRPC, which closes it when its last stream has ended. If the successor cannot be
// had, the old one stays.
const (
	// A successor that failed is dialled again after replacePause, doubled for each
	// failure in a row up to longestReplacePause, each with up to a half on top.
	replacePause        = time.Second
	longestReplacePause = 30 * time.Second
)

// replacement is the plan to replace a connection.
type replacement struct {
	at        time.Time // not before; zero: no plan
	why       string
	failures  int
	successor bool // it is being dialled, or on trial
}

// replaceAll plans to replace every connection.
func (s *subchannel) replaceAll(why string, within time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.all {
		if c.phase == phaseReady || c.phase == phaseTrial || c.phase == phaseDialling {
			s.planLocked(c, time.Now().Add(randomUpTo(within/2)), why)
		}
	}
	s.armReplaceLocked()
}

// planLocked has c replaced at the given time, or earlier if that was planned.
func (s *subchannel) planLocked(c *connection, at time.Time, why string) {
	first := c.replace.at.IsZero()
	if first || at.Before(c.replace.at) {
		c.replace.at = at
	}
	if first || c.replace.why == byAge || c.replace.why == whyStuck && why != byAge { // which may turn out to be no reason
		c.replace.why = why
	}
}

// armReplaceLocked sees to it that plans are carried out.
func (s *subchannel) armReplaceLocked() {
	var next time.Time
	for _, c := range *s.ready.Load() {
		at := c.replace.at
		if !at.IsZero() && !c.replace.successor && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	s.replaceTick.stop()
	if !next.IsZero() && !s.closed {
		s.setLocked(&s.replaceTick, max(time.Until(next), 0), s.replaceDue)
	}
}

// replaceDue dials the successors of connections whose time has come.
func (s *subchannel) replaceDue() {
	var due []*connection
	s.mu.Lock()
	for _, c := range *s.ready.Load() {
		if at := c.replace.at; !at.IsZero() && !c.replace.successor && time.Until(at) <= 0 {
			c.replace.successor = true
			due = append(due, c)
		}
	}
	s.starting += len(due)
	s.armReplaceLocked()
	s.mu.Unlock()
	for _, c := range due {
		if !s.policy.tasks.run(func() { s.dialOne(c) }) {
			return // the channel is closing
		}
	}
}
