package scale

import (
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// Replacer has channels replace their connections, for instance when the
// identity that they were made with is no longer the one to show. Its zero value
// is ready for use in any number of channels; see [WithReplacer]. It holds nothing
// of a channel that is idle or closed. Its methods may be called concurrently.
type Replacer struct {
	mu       sync.Mutex // guards policies
	policies map[*policy]struct{}
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

// Replace has every connection that there is now, or that is being dialled, make
// way for a new one within the given time: at a random moment of its first half,
// so that not all of them are dialled at once. The successor is dialled first. When
// it has answered a question (where probes are on), new calls go there, and the old
// connection is closed when its last stream has ended, however long that takes. If
// the successor cannot be had, the old connection stays in use and the dial is tried
// again. why goes into events and is one line. Replace does not wait.
func (r *Replacer) Replace(why string, within time.Duration) {
	r.mu.Lock()
	policies := make([]*policy, 0, len(r.policies))
	for p := range r.policies {
		policies = append(policies, p)
	}
	r.mu.Unlock()
	for _, p := range policies {
		for _, s := range p.subchannels() {
			s.replaceAll(why, within)
		}
	}
}

func (r *Replacer) add(p *policy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.policies == nil {
		r.policies = make(map[*policy]struct{})
	}
	r.policies[p] = struct{}{}
}

func (r *Replacer) remove(p *policy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.policies, p)
}
