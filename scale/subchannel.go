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

// A map of this package's files.
//
// What gRPC and the child policy see:
//
//	policy.go       the LB policy; childpolicy.go its child, and the change to another
//	picker.go       the path of a call: the pick, the stream that it takes, and the Done that gives it back
//	queue.go        calls that wait for a stream; priority.go those that go first
//	subchannel.go   one address: what the child holds as one SubConn
//	addresses.go    other addresses for a subchannel that lives on
//	health.go       gRPC's client-side health checking, on the oldest connection
//
// How a subchannel changes:
//
//	effects.go      the one way into and out of its lock, and what follows a change, in order
//	phase.go        the phases of a connection and the moves between them
//	states.go       what follows a state that gRPC reports, and a GOAWAY
//	connection.go   one connection: its SubConn, its tap and its limits
//	growth.go       more connections and fewer
//	dialling.go     how long a dial is tried, and when the next begins
//	handshakes.go   what follows when the server has a connection and does not finish the handshake
//	budget.go       how many dials channels may begin
//	succession.go   replacing a connection before it ends; replace.go its public side
//	ages.go         at what age a server ends connections, and whether it really does
//	memory.go       what is remembered of an address
//	tasks.go        goroutines and timers, and who waits for them
//
// Whether a connection is alive:
//
//	liveness.go             what proves it, when it is asked, how long it may take to answer
//	liveness_inquiry.go     what follows when it does not answer
//	liveness_silence.go     how long it is waited for when nothing answers, and its ejection
//	liveness_quiet.go       the same for a connection that nobody uses, and for the call that ends that
//	doubt.go                connections that take no new calls until they are proved
//	liveness_witness.go     whether this process ran well enough to tell
//	liveness_trial.go       what a successor has to answer before it is used
//	liveness_ends.go        what the end of a connection says about the server, and how long dials are held back
//	liveness_suspicion.go   which others are likely to end with it
//
// Locks, in the order in which they may be taken: childPolicy.calls, policy.mu,
// subchannel.mu, and then the innermost ones, of tasks, channel, Memory, DialBudget,
// Replacer and events. subchannel.mu is held for a few assignments at a time. Nothing of gRPC or of the
// child is called with it, and nothing that waits.

// subchannel is what the child policy holds as one SubConn: one address, and one
// to maxConnections connections to it.
//
// INVARIANT: the child is told states as if there were one connection, and only
// those steps that every policy knows: READY is left for IDLE alone. It is told
// on gRPC's own goroutine, which runs connection.onState, and nowhere else; see
// resumeOnGRPCLocked.
//
// INVARIANT: while no connection is READY at most one is in backoff or held, the
// one that will bring the child back to IDLE. In TRANSIENT_FAILURE there is either that
// one, or a late handshake (see handshakes.go), whose result brings the child on.
//
// INVARIANT: ready holds the connections in phaseReady, and nothing else.
//
// INVARIANT: what is guarded by mu changes in update, and only there.
type subchannel struct {
	balancer.SubConn // the first connection's, since gRPC wants one embedded; never called

	policy *policy
	child  *childPolicy
	opts   balancer.NewSubConnOptions // the child's

	// Read by every pick.
	ready    atomic.Pointer[[]*connection] // oldest first; replaced under mu
	waiting  atomic.Int64                  // calls in the queue, or about to be; and a health watch that waits
	suspects suspects                      // written under mu

	waiters waiterPool
	addrs   atomic.Pointer[[]resolver.Address] // replaced under mu; at least one

	mu sync.Mutex // guards all below

	all      map[*connection]struct{}
	starting int                // connections that are about to be made, to dial
	queue    queue              // calls that wait
	state    connectivity.State // what the child was told last
	closed   bool               // by the child
	lastErr  error              // why the last dial failed or the last connection was lost

	// Growth.
	parked     int    // this subchannel's share of the calls that wait for it to be READY
	tokens     bucket // for the dials of growth
	regrow     timer  // looks at growth again
	shrinkTick timer  // looks for connections to close

	// Dials.
	wanted        bool      // calls find no connection, see dialling.go
	begunAt       time.Time // when the last dial was
	downSince     time.Time // when the first dial without a connection began; zero: there has been one since
	dialFails     int       // failed dials since the last connection
	besideAt      time.Time // when a dial may begin beside a late handshake
	timedOutAt    time.Time // when a handshake last was found to take too long
	besides       int       // how many have, since the last connection
	superviseTick timer     // looks at dials

	// What the ends of connections have said.
	shortLived        int       // failures in a row that reached the server
	judgedAt          time.Time // when the last of them was
	heldUntil         time.Time // no dial before it, because of shortLived
	held              timer     // ends the hold of the connection in phaseHeld
	ejectedSinceReady bool      // a connection was ejected, and none has become READY since
	suspicionTick     timer     // ends a suspicion

	// Replacement.
	stuckAt     time.Time     // when a connection was last replaced for want of an answer
	stuckPause  time.Duration // from then until another one may be; 0: at once
	replaceTick timer         // carries out replacements
	observed    *connection   // the one in phaseObserved, if any
	observeTick timer         // ends that

	// What stands on the oldest connection.
	primary  *connection // the oldest, as far as health and the child's producers are concerned
	produced bool        // the child has producers on it
	health   health

	stats     counters
	starvedAt time.Time // of the last EventStarved
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
	if known := s.policy.channel.memory.recall(s.addr()); time.Since(known.judgedAt) < troubleLasts && !child.policy.settings.Load().unsupervised {
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
	c, err := s.newConnection(s.othersFirst(*addrs))
	s.update(func(e *effects) {
		s.starting--
		if err != nil { // the channel is closing
			return
		}
		s.all[c] = struct{}{}
		dropped := predecessor != nil && predecessor.phase == phaseReady && !predecessor.replace.successor
		if s.closed || dropped {
			s.resumeOnGRPCLocked(c, e)
			return
		}
		if s.addrs.Load() != addrs {
			e.readdress = append(e.readdress, c)
		}
		c.predecessor = predecessor
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
			c.leavePlaceLocked() // gRPC may report no SHUTDOWN any more
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
			if now.probeInterval != old.probeInterval || now.idleProbeInterval != old.idleProbeInterval {
				c.useLocked()
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

var _ balancer.SubConn = (*subchannel)(nil)
