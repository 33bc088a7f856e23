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

// Replacer makes channels replace their connections, for instance when they were made
// with a certificate that has been renewed since. Make one with new(Replacer); it works
// for any number of channels. Attach a channel to it with [WithReplacer], or with
// transport credentials that have a method
//
//	Replacer() *scale.Replacer
//
// as those of package identity have. A Replacer keeps nothing of a channel that is idle
// or closed. Its methods may be called concurrently.
type Replacer struct {
	mu       sync.Mutex           // guards what follows
	policies map[*policy]struct{} // of active channels
	onUse    func()               // may be nil
}

// WithReplacer attaches the channel to r, which can then replace its connections. r must
// not be nil. The option may be given several times.
func WithReplacer(r *Replacer) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if r == nil {
			return errors.New("scale: WithReplacer(nil): want a Replacer")
		}
		o.replacers = append(o.replacers, r)
		return nil
	})
}

// OnUse sets a function that is called when the first channel of r becomes active, and
// when the last active one goes idle or is closed. Call OnUse before the first channel
// is made. Calls of f may overlap and come late, so f should call [Replacer.InUse] for
// the present state. f runs on one of gRPC's goroutines, with no lock held, and must not
// block.
func (r *Replacer) OnUse(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onUse = f
}

// InUse reports whether a channel of r is active, that is, neither idle nor closed.
func (r *Replacer) InUse() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.policies) > 0
}

// Subchannels returns the subchannels of every active channel of r. Each is copied when
// the loop comes to it.
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

// Replace replaces every connection that is open or being dialled now. The dial of each
// successor begins at a random moment of the first half of within, so that not all are
// dialled at once. When the successor has answered a probe (if probes are on), new calls
// go to it, and the old connection is closed when its last stream has ended, however long
// that takes. If the successor cannot be dialled or does not answer, the old connection
// stays in use and the dial is tried again. why is one line of text for the events.
// Replace does not wait.
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

// replacers are those of the channel's dial options and of its credentials.
func (p *policy) replacers() []*Replacer {
	if creds, ok := p.opts.DialCreds.(interface{ Replacer() *Replacer }); ok {
		if r := creds.Replacer(); r != nil {
			return append(slices.Clone(p.channel.replacers), r)
		}
	}
	return p.channel.replacers
}
