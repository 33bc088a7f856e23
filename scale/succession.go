package scale

import (
	"slices"
	"time"

	"github.com/davidwartell/go-grpcpool/internal/jitter"
)

// To replace a connection, its successor is dialled first. When the successor has answered
// (see liveness_trial.go) it takes the new calls, and gRPC closes the old connection when
// its last stream has ended. If the successor cannot be dialled, the old one stays.
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
	s.update(func(*effects) {
		for c := range s.all {
			if c.phase == phaseReady || c.phase == phaseTrial || c.phase == phaseDialling {
				s.planLocked(c, time.Now().Add(jitter.UpTo(within/2)), why)
			}
		}
		s.armReplaceLocked()
	})
}

// planLocked has c replaced at the given time, or earlier if that was planned.
func (s *subchannel) planLocked(c *connection, at time.Time, why string) {
	first := c.replace.at.IsZero()
	if first || at.Before(c.replace.at) {
		c.replace.at = at
	}
	if first || c.replace.why == byAge || c.replace.provisional() && why != byAge { // which may turn out to be no reason
		c.replace.why = why
	}
}

// armReplaceLocked has replaceDue called when the next plan is due.
func (s *subchannel) armReplaceLocked() {
	var next time.Time
	for _, c := range *s.ready.Load() {
		at := c.replace.at
		if !at.IsZero() && !c.replace.successor && !s.heldBackLocked(c) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	s.replaceTick.stop()
	if !next.IsZero() && !s.closed {
		s.armLocked(&s.replaceTick, max(time.Until(next), 0), s.replaceDue)
	}
}

// replaceDue dials the successors of connections whose time has come.
func (s *subchannel) replaceDue() {
	s.update(func(e *effects) {
		for _, c := range *s.ready.Load() {
			if at := c.replace.at; !at.IsZero() && !c.replace.successor && !s.heldBackLocked(c) && time.Until(at) <= 0 {
				c.replace.successor = true
				e.dialSuccessor(c)
			}
		}
		s.armReplaceLocked()
	})
}

// heldBackLocked reports whether c, which is silent, has no successor dialled because that
// of another silent connection is under way.
func (s *subchannel) heldBackLocked(c *connection) bool {
	return c.replace.why == whySilent && slices.ContainsFunc(*s.ready.Load(), func(other *connection) bool {
		return other != c && other.replace.why == whySilent && other.replace.successor
	})
}

// takeOverLocked lets c, which has been put to use, take the place of its predecessor. The
// health watch and the child's producers move when the predecessor is gone.
func (s *subchannel) takeOverLocked(c *connection, e *effects) {
	old := c.predecessor
	c.predecessor = nil
	if old == nil || old.phase != phaseReady {
		return
	}
	s.removeLocked(old, e)
	s.stats.replaced++
	s.event(EventReplaced, old, time.Since(old.readyAt), old.replace.why)
	e.publish = true
	if !s.observeLocked(old, e) {
		s.retireLocked(old, e)
	}
}

// successorFailedLocked has another successor dialled later, if c was to replace a
// connection. It is called for every connection that has ended.
func (s *subchannel) successorFailedLocked(c *connection) {
	old := c.predecessor
	c.predecessor = nil
	if old == nil {
		return
	}
	pause := min(replacePause<<min(old.replace.failures, 8), longestReplacePause)
	old.replace.failures++
	old.replace.successor = false
	old.replace.at = time.Now().Add(pause + jitter.UpTo(pause/2))
	s.armReplaceLocked()
}
