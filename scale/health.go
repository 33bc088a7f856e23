package scale

import (
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
)

// health is what a subchannel knows of the health checks of its child policy
// (gRPC's client-side health checking). One watch, on the oldest connection,
// speaks for the subchannel. It is guarded by subchannel.mu.
type health struct {
	listener func(balancer.SubConnState) // the child's; nil without
	last     connectivity.State          // what it was told last
}

// RegisterHealthListener implements balancer.SubConn. A nil listener ends the
// reports.
func (s *subchannel) RegisterHealthListener(listener func(balancer.SubConnState)) {
	s.mu.Lock()
	s.health = health{listener: listener}
	s.mu.Unlock()
	s.watchOldest()
}

// watchOldest has gRPC watch the health on the oldest connection. After a change
// of that, the child is spared the CONNECTING with which every watch begins: what
// it knows is the best guess until the new watch has an answer.
func (s *subchannel) watchOldest() {
	s.mu.Lock()
	c, listener := s.oldest(), s.health.listener
	s.mu.Unlock()
	if c == nil {
		return
	}
	if listener == nil {
		c.sc.RegisterHealthListener(nil)
		return
	}
	c.sc.RegisterHealthListener(func(state balancer.SubConnState) { s.onHealth(c, listener, state) })
}

// onHealth is told of c's health on gRPC's goroutine. CONNECTING means that there
// is a stream for the watch, which is then set aside; without health checking
// the one report is READY.
func (s *subchannel) onHealth(c *connection, listener func(balancer.SubConnState), state balancer.SubConnState) {
	s.mu.Lock()
	if s.oldest() != c {
		s.mu.Unlock()
		return
	}
	beginning := state.ConnectivityState == connectivity.Connecting
	if beginning && !c.watched {
		c.watched = true
		c.setLimitLocked()
	}
	spare := beginning && s.health.last == connectivity.Ready
	if !spare {
		s.health.last = state.ConnectivityState
	}
	s.mu.Unlock()
	if spare {
		return
	}
	s.child.calls.Lock()
	defer s.child.calls.Unlock()
	if s.child.inUse() {
		listener(state)
	}
}
