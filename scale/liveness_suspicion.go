package scale

import (
	"slices"
	"sync/atomic"
	"time"
)

// A server that shuts down ends all its connections at about the same time. gRPC makes the
// calls that it has not begun once more, on another connection. A call whose second
// connection is ended in the same way fails. So when a connection is ended with such calls
// on it, those that are as old are under suspicion for suspectFor: calls wait for that
// long, or until a connection stands that was made since.
//
// The ends of a server's connections were seen to arrive within a millisecond. Most
// servers still accept calls already in flight, and end connections one at a time; those
// connections are never under suspicion.
const suspectFor = 5 * time.Millisecond

// suspicion is against every connection that was made before since, when the server
// began to end connections.
type suspicion struct{ since time.Time }

// suspects is how picks see the suspicion, without a lock.
type suspects struct{ now atomic.Pointer[suspicion] }

// unsuspected are those of the connections that are not under suspicion.
func (s *suspects) unsuspected(ready []*connection) []*connection {
	now := s.now.Load()
	if now == nil {
		return ready
	}
	return slices.DeleteFunc(slices.Clone(ready), func(c *connection) bool { return c.made.Before(now.since) })
}

// orphaned is told that c ended with a call on it that the server may not have begun.
// gRPC picks for that call again after orphaned has returned.
func (c *connection) orphaned() {
	s, since := c.sub, c.made.Add(time.Duration(c.drainedAt.Load()))
	s.update(func(*effects) {
		if s.closed {
			return
		}
		if now := s.suspects.now.Load(); now == nil || since.Before(now.since) {
			s.suspects.now.Store(&suspicion{since})
		}
		s.suspicionTick.stop()
		s.armLocked(&s.suspicionTick, suspectFor, s.clearSuspicion)
	})
}

// clearSuspicion ends the suspicion.
func (s *subchannel) clearSuspicion() {
	s.update(func(e *effects) {
		s.suspects.now.Store(nil)
		s.serveLocked(e)
	})
}
