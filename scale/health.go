package scale

import (
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
)

// health is what a subchannel knows about the health checks of its child policy (gRPC's
// client-side health checking). One watch, on the oldest connection, stands for the whole
// subchannel. It is guarded by subchannel.mu.
type health struct {
	listener func(balancer.SubConnState) // the child's; nil without
	nth      int                         // tells a listener from the next; outlives a reset
	last     connectivity.State          // what it was told last
	waitsOn  *connection                 // its watch waits for a stream; counted in subchannel.waiting
}

// RegisterHealthListener implements balancer.SubConn. A nil listener ends the
// reports.
func (s *subchannel) RegisterHealthListener(listener func(balancer.SubConnState)) {
	s.update(func(e *effects) {
		s.resetHealthLocked()
		s.health.listener = listener
		e.primary = true
	})
}

func (s *subchannel) resetHealthLocked() {
	if s.health.waitsOn != nil {
		s.waiting.Add(-1)
	}
	s.health = health{nth: s.health.nth + 1}
}

// watchPrimaryHealth has gRPC watch the health on the oldest connection. The watch is a
// stream that no Pick sees, so one is taken for it first. Otherwise it could use
// up the last stream before a call that has picked it, and the call would wait in
// the transport for the watch to end, which it never does.
func (s *subchannel) watchPrimaryHealth() {
	s.update(func(e *effects) {
		c := s.oldest()
		if s.health.waitsOn != nil {
			s.health.waitsOn = nil
			s.waiting.Add(-1)
		}
		switch {
		case c == nil:
		case s.health.listener == nil || c.setAsideLocked():
			e.watch = c
		default:
			s.health.waitsOn = c
			s.waiting.Add(1) // has every stream that is given back come to dispatchLocked
		}
	})
}

// resumeHealthWatchLocked begins a watch that waited for a stream, if there is one now.
func (s *subchannel) resumeHealthWatchLocked(e *effects) {
	c := s.health.waitsOn
	if c == nil || !c.setAsideLocked() {
		return
	}
	s.health.waitsOn = nil
	s.waiting.Add(-1)
	e.run = append(e.run, func() { s.watchHealth(c) })
}

// setAsideLocked takes a stream for a watch. It is false if the calls have all of
// them. A server that allows no stream, or one where there is no second connection
// to be had, gets a watch that is not counted: the transport has it wait, or the
// calls, as on a plain channel.
func (c *connection) setAsideLocked() bool {
	if c.watched || c.softLimit.Load() == 0 || c.softLimit.Load() == 1 && c.sub.policy.settings.Load().maxConnections == 1 {
		return true
	}
	c.watched = c.takeInDoubt(c.callLimit.Load())
	return c.watched
}

// watchHealth registers the child's listener for c's health with gRPC. What comes is told
// on gRPC's goroutine; watchHealth may run on another, beside the one that registers the
// child's next listener. The one that registers last sees that there is another, and
// begins again.
func (s *subchannel) watchHealth(c *connection) {
	listener, nth := s.healthListener()
	if listener == nil {
		c.sc.RegisterHealthListener(nil)
		s.update(func(e *effects) { s.endHealthWatchLocked(c, e) })
	} else {
		c.sc.RegisterHealthListener(func(state balancer.SubConnState) { s.onHealth(c, nth, listener, state) })
	}
	if _, last := s.healthListener(); last != nth {
		s.watchPrimaryHealth()
	}
}

// healthListener is the child's listener of now, and which one that is.
func (s *subchannel) healthListener() (listener func(balancer.SubConnState), nth int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.health.listener, s.health.nth
}

// endHealthWatchLocked gives the stream back that was set aside.
func (s *subchannel) endHealthWatchLocked(c *connection, e *effects) {
	if c.watched {
		c.watched = false
		c.releaseLocked(e)
	}
}

// onHealth is told of c's health. A watch begins with CONNECTING; without one the
// only report is READY. When the oldest connection has changed, the child is
// spared the CONNECTING: what it knows is the best guess until the new watch has
// an answer.
func (s *subchannel) onHealth(c *connection, nth int, listener func(balancer.SubConnState), state balancer.SubConnState) {
	s.update(func(e *effects) {
		if s.oldest() != c || s.health.nth != nth {
			return
		}
		beginning := state.ConnectivityState == connectivity.Connecting
		if !c.checked && !beginning {
			s.endHealthWatchLocked(c, e)
		}
		c.checked = c.checked || beginning
		if beginning && s.health.last == connectivity.Ready {
			return
		}
		s.health.last = state.ConnectivityState
		e.report = func() { listener(state) }
	})
}
