package scale

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"
)

// subchannel is what the child policy holds as one SubConn: one address, and one
// to maxConnections connections to it.
//
// INVARIANT: the child is told states as if there were one connection, and only
// those steps that every policy knows: READY is left for IDLE alone. It is told
// on gRPC's own goroutine, which runs connection.onState, and nowhere else.
//
// INVARIANT: while no connection is READY at most one is in backoff or held, the
// one that will bring the child back to IDLE.
type subchannel struct {
	balancer.SubConn // the first connection's, since gRPC wants one embedded; never called

	policy *policy
	child  *childPolicy
	opts   balancer.NewSubConnOptions // the child's

	// Read by every pick.
	ready   atomic.Pointer[[]*connection] // oldest first; replaced under mu
	waiting atomic.Int64                  // calls in the queue, or about to be

	suspects suspects // written under mu

	waiters waiterPool
	addrs   atomic.Pointer[[]resolver.Address] // replaced under mu; at least one

	// mu guards all below. Nothing of gRPC or of the child is called with it held.
	mu                sync.Mutex
	all               map[*connection]struct{}
	starting          int                // connections that are about to be made, to dial
	queue             queue              // calls that wait
	state             connectivity.State // what the child was told last
	closed            bool               // by the child
	lastErr           error              // why the last dial failed or the last connection was lost
	parked            int                // this subchannel's share of the calls that wait for it to be READY
	dialFails         int                // failed dials since the last connection
	shortLived        int                // connections in a row that were lost soon
	heldUntil         time.Time          // no dial before it, because of shortLived
	tokens            bucket             // for the dials of growth
	regrow            timer              // looks at growth again
	shrinkTick        timer              // looks for connections to close
	held              timer              // ends the hold of the connection in phaseHeld
	wanted            bool               // there is demand, see dialling.go
	begunAt           time.Time          // when the last dial was
	ejectedSinceReady bool               // a connection was ejected, and none has become READY since
	stuckAt           time.Time          // when a connection was last replaced for want of an answer
	stuckPause        time.Duration      // from then until another one may be; 0: at once
	superviseTick     timer              // looks at dials
	replaceTick       timer              // carries out replacements
	suspicionTick     timer              // ends a suspicion
	observed          *connection        // the one in phaseObserved, if any
	observeTick       timer              // ends that
	health            health
	primary           *connection // the oldest, as far as health and the child's producers are concerned
	produced          bool        // the child has producers on it
	stats             counters
	starvedAt         time.Time // when there was an event of that last
}

// counters are what happened to a subchannel since it was made.
type counters struct {
	opened, failed, lost, shrunk, ejected, replaced uint64
	probes, probesFailed                            uint64
	waited, starved                                 uint64
}

// newSubchannel makes a subchannel and its first connection, which it leaves to
// the child to connect.
func newSubchannel(child *childPolicy, addrs []resolver.Address, opts balancer.NewSubConnOptions) (*subchannel, error) {
	s := &subchannel{
		policy: child.policy,
		child:  child,
		opts:   opts,
		all:    make(map[*connection]struct{}),
		state:  connectivity.Idle,
		wanted: child.policy.demanded.Load(),
	}
	addrs = slices.Clone(addrs)
	s.addrs.Store(&addrs)
	s.ready.Store(new([]*connection))
	if known := s.policy.channel.memory.recall(s.addr()); time.Since(known.judgedAt) < troubleLasts {
		s.shortLived = known.shortLived
	}
	c, err := s.newConnection(addrs)
	if err != nil {
		return nil, err
	}
	s.SubConn = c.sc
	s.all[c] = struct{}{}
	return s, nil
}

// addr is the address, for messages and as the key of what is remembered.
func (s *subchannel) addr() string {
	return (*s.addrs.Load())[0].Addr
}

// connecting reports whether the child waits for the first connection.
func (s *subchannel) connecting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == connectivity.Connecting
}

// countLocked says how many connections are in each phase.
func (s *subchannel) countLocked() (byPhase [phaseHeld + 1]int) {
	for c := range s.all {
		byPhase[c.phase]++
	}
	byPhase[phaseDialling] += s.starting
	return byPhase
}

// servingLocked reports whether it makes sense to wait for a stream.
func (s *subchannel) servingLocked() bool {
	return !s.closed && (len(*s.ready.Load()) > 0 || s.countLocked()[phaseDialling] > 0)
}

// Connect implements balancer.SubConn. The child calls it when it was told IDLE.
func (s *subchannel) Connect() {
	s.update(func(e *effects) {
		if s.closed || s.state != connectivity.Idle || s.countLocked()[phaseDialling] > 0 {
			return
		}
		for c := range s.all {
			if c.phase == phaseIdle {
				s.beginDialLocked(c, e)
				return
			}
		}
		e.dial(1)
	})
}

// dialOne makes and connects one connection, to replace predecessor unless that is
// nil. starting was raised for it. gRPC dials on goroutines of its own.
func (s *subchannel) dialOne(predecessor *connection) {
	addrs := s.addrs.Load()
	c, err := s.newConnection(*addrs)
	s.update(func(e *effects) {
		s.starting--
		if err != nil { // the channel is closing
			return
		}
		s.all[c] = struct{}{}
		c.predecessor = predecessor
		if s.closed {
			s.resumeOnGRPCLocked(c, e)
			return
		}
		if s.addrs.Load() != addrs {
			e.readdress = append(e.readdress, c)
		}
		s.beginDialLocked(c, e)
	})
}

// Shutdown implements balancer.SubConn. RPCs on the connections run on; calls that
// wait pick again. The last SHUTDOWN of a SubConn tells the child its own. If the
// last SubConn is gone already, one is made for that.
func (s *subchannel) Shutdown() {
	listens := s.child.inUse()
	s.child.forget(s)
	s.update(func(e *effects) {
		if s.closed {
			return
		}
		s.closed = true
		s.state = connectivity.Shutdown
		s.stopTimersLocked()
		s.ready.Store(new([]*connection))
		s.wakeLocked()
		if listens && len(s.all) == 0 && s.starting == 0 {
			e.dial(1) // which goes no further than SHUTDOWN, as the subchannel is closed
		}
		for c := range s.all {
			s.retireLocked(c, e)
		}
	})
}

func (s *subchannel) stopTimersLocked() {
	for _, t := range []*timer{
		&s.regrow, &s.shrinkTick, &s.held, &s.superviseTick, &s.replaceTick, &s.suspicionTick, &s.observeTick,
	} {
		t.stop()
	}
	for c := range s.all {
		c.probeTimer.stop()
	}
}

// removeLocked takes c from the ready list, and ends its probing. A successor of c that
// is on trial is put to use.
func (s *subchannel) removeLocked(c *connection, e *effects) {
	c.probeTimer.stop()
	ready := slices.Clone(*s.ready.Load())
	if i := slices.Index(ready, c); i >= 0 {
		ready = slices.Delete(ready, i, i+1)
		s.ready.Store(&ready)
	}
	for successor := range s.all {
		if successor.predecessor == c && successor.phase == phaseTrial {
			successor.predecessor = nil
			s.putToUseLocked(successor)
			s.dispatchLocked(e)
		}
	}
}

// oldest is the connection that stands for the subchannel, nil if none is READY.
func (s *subchannel) oldest() *connection {
	if ready := *s.ready.Load(); len(ready) > 0 {
		return ready[0]
	}
	return nil
}

// GetOrBuildProducer implements balancer.SubConn. The producer runs on the oldest
// connection.
func (s *subchannel) GetOrBuildProducer(b balancer.ProducerBuilder) (balancer.Producer, func()) {
	var c *connection
	s.update(func(*effects) {
		s.produced = true
		c = s.oldest()
	})
	if c == nil { // the child may not do this; it gets what an idle SubConn gives
		return s.SubConn.GetOrBuildProducer(b)
	}
	return c.sc.GetOrBuildProducer(countedBuilder{b, c})
}

// settingsChanged applies new settings to what is there. Timers whose settings are the
// old ones go on: a config that changes often must not put them off for ever.
func (s *subchannel) settingsChanged(old, now *settings) {
	s.update(func(e *effects) {
		for c := range s.all {
			c.setLimitLocked()
			if now.probeInterval != old.probeInterval {
				c.probeTimer.stop()
				s.armProbeLocked(c)
			}
		}
		s.dispatchLocked(e)
		if now.shrinkAfter != old.shrinkAfter {
			s.shrinkTick.stop()
		}
		s.armShrinkLocked()
		s.growLocked(e)
	})
}

// warnUntapped says once for the channel that it cannot scale.
func (s *subchannel) warnUntapped() {
	ch := s.policy.channel
	ch.tapless.Do(func() {
		ch.warn("the connections cannot be watched, so the channel works like a plain one: something between it and its SubConns drops NewSubConnOptions.CredsBundle", "address", s.addr())
	})
}

var _ balancer.SubConn = (*subchannel)(nil)
