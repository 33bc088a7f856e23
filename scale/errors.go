package scale

import (
	"fmt"

	"github.com/davidwartell/go-grpcpool/internal/reason"
)

// explain says why a dial failed, and what to do about it.
func (s *subchannel) explain(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("scale: connecting to %w", reason.Explain(s.addr(), err))
}

// LastErrors are, for each subchannel that has had one, why the last dial failed or
// the last connection was lost: the errors as they were met, of which the status of
// an RPC has the words only.
func (o *Observer) LastErrors() (errs []error) {
	ch := o.channel.Load()
	if ch == nil {
		return nil
	}
	for _, p := range ch.livePolicies() {
		for _, s := range p.subchannels() {
			s.mu.Lock()
			if s.lastErr != nil {
				errs = append(errs, s.lastErr)
			}
			s.mu.Unlock()
		}
	}
	return errs
}
