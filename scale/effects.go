package scale

import (
	"sync"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
)

// effects are what follows a change of a subchannel's state: calls of gRPC and of the
// child policy, which must not be made under subchannel.mu. A change notes them while it
// holds the lock. update carries them out afterwards, in the order of the fields.
//
// The order matters:
//
//   - The child is told first. A call that is served earlier might take the stream that
//     the child's health watch is about to need.
//   - Then the calls that wait get the free streams, before gRPC makes them pick again.
//   - The new picker is published before a SubConn is shut down, so that no call that
//     picks again meets a connection that is gone.
//   - Dials come late. They only begin here, on goroutines of their own.
//   - Sockets are closed after that. One that the program's own dialer made may take long to
//     close, and its successor must not wait for it.
type effects struct {
	sub *subchannel

	readdress []*connection           // which are to dial the subchannel's present addresses
	tell      []balancer.SubConnState // to the child; only on gRPC's goroutine
	report    func()                  // to the child's health listener; only on gRPC's goroutine
	serve     bool                    // give the calls that wait the free streams
	publish   bool                    // a new picker, for calls that picked a connection that is gone
	primary   bool                    // the oldest connection is another one: watch its health
	watch     *connection             // which the child's health listener is to be registered with
	shutdown  []*connection           // whose SubConns are to be shut down
	connect   []*connection           // which are to connect
	dials     int                     // connections to be made and dialled
	succeed   []*connection           // connections whose successors are to be made and dialled
	run       []func()                // to be run on goroutines of their own
	kill      []killing               // only on goroutines of this package: closing a socket may block
	warn      bool                    // that the connection has no tap
}

// killing is a connection whose socket is to be closed, and the error for its RPCs.
type killing struct {
	conn *connection
	why  error
}

// effectsPool keeps update free of allocations, because calls that wait go through it.
var effectsPool = sync.Pool{New: func() any { return new(effects) }}

// update is the one way to change a subchannel's state. change runs with s.mu held and
// notes in e what has to follow. update then unlocks s.mu and carries that out, on the
// caller's goroutine. Only closing a socket (kill) may wait there. The child policy may
// call update again from there: each call has effects of its own.
//
// Code that only reads may lock s.mu itself.
func (s *subchannel) update(change func(e *effects)) {
	e, _ := effectsPool.Get().(*effects)
	e.sub = s
	e.locked(change)
	e.carryOut()
	*e = effects{}
	effectsPool.Put(e)
}

// locked runs change with subchannel.mu held.
func (e *effects) locked(change func(e *effects)) {
	e.sub.mu.Lock()
	defer e.sub.mu.Unlock()
	change(e)
}

// carryOut does what was noted, in the order of the fields. It runs without a lock.
func (e *effects) carryOut() {
	s := e.sub
	for _, c := range e.readdress {
		c.readdress(*s.addrs.Load())
	}
	e.tellChild()
	if e.serve {
		e.locked(s.serveLocked)
	}
	if e.publish {
		s.policy.republish()
	}
	if e.primary {
		s.watchPrimaryHealth()
	}
	if e.watch != nil {
		s.watchHealth(e.watch)
	}
	for _, c := range e.shutdown {
		s.policy.shutDown(c.sc)
	}
	e.begin()
	for _, k := range e.kill {
		k.conn.tap.Kill(k.why)
	}
	if e.warn {
		s.warnUntapped()
	}
}

// shutDown shuts sc down on a goroutine of its own, because closing a connection may wait
// for the peer. When Close lets no more goroutines begin, the caller does it. Otherwise
// sc might stay open: not every policy above this one closes the SubConns that it left.
func (p *policy) shutDown(sc balancer.SubConn) {
	if !p.tasks.run(sc.Shutdown) {
		sc.Shutdown()
	}
}

// tellChild tells the child the states and the health that were noted.
func (e *effects) tellChild() {
	s := e.sub
	for _, state := range e.tell {
		s.child.tell(s, state)
		if state.ConnectivityState == connectivity.Connecting {
			s.policy.scheduleColdGrowth()
		}
	}
	if e.report != nil {
		s.child.call(e.report)
	}
}

// begin begins dials and goroutines. While the policy closes none begins.
func (e *effects) begin() {
	s := e.sub
	for _, c := range e.connect {
		c.sc.Connect()
	}
	for range e.dials {
		s.policy.tasks.run(func() { s.dialOne(nil) })
	}
	for _, predecessor := range e.succeed {
		s.policy.tasks.run(func() { s.dialOne(predecessor) })
	}
	for _, f := range e.run {
		s.policy.tasks.run(f)
	}
}

// dial notes that n further connections are to be dialled. They count as dialling from
// now on.
func (e *effects) dial(n int) {
	e.sub.starting += n
	e.dials += n
}

// takeBackDial takes back one dial that was noted. It is false if there is none.
func (e *effects) takeBackDial() bool {
	if e.dials == 0 {
		return false
	}
	e.dial(-1)
	return true
}

// dialSuccessor notes that the successor of c is to be dialled. It counts as dialling from
// now on.
func (e *effects) dialSuccessor(c *connection) {
	e.sub.starting++
	e.succeed = append(e.succeed, c)
}

// tellLocked notes that the child is to be told state.
func (s *subchannel) tellLocked(e *effects, state connectivity.State, err error) {
	s.state = state
	e.tell = append(e.tell, balancer.SubConnState{ConnectivityState: state, ConnectionError: err})
}

// retireLocked closes c to new streams and has gRPC close it when its streams are done.
func (s *subchannel) retireLocked(c *connection, e *effects) {
	if c.phase == phaseRetired {
		return
	}
	c.moveLocked(phaseRetired)
	c.takeOut()
	c.probeTimer.stop()
	e.shutdown = append(e.shutdown, c)
}

// resumeOnGRPCLocked shuts c's SubConn down. Its SHUTDOWN arrives in onShutdownLocked, on
// gRPC's goroutine for the channel, which is the only one on which the child may be told
// states. Timers and callers use this when they have decided something that the child has
// to hear of: the end of a backoff or of a hold, a dial that is given up, the end of a
// subchannel that has no connection left.
//
// A held connection stays held until SHUTDOWN comes, so that no other is dialled earlier.
func (s *subchannel) resumeOnGRPCLocked(c *connection, e *effects) {
	if c.phase == phaseHeld {
		e.shutdown = append(e.shutdown, c)
		return
	}
	s.retireLocked(c, e)
}

// runOnGRPC has f run on gRPC's goroutine for the channel, when no connection is to be shut
// down for it: it makes a SubConn for that purpose alone.
func (s *subchannel) runOnGRPC(f func(*effects)) {
	c, err := s.newConnection(*s.addrs.Load())
	if err != nil {
		return // the channel is closing
	}
	c.errand = f
	s.update(func(e *effects) {
		if s.closed {
			e.shutdown = append(e.shutdown, c)
			return
		}
		s.all[c] = struct{}{}
		s.resumeOnGRPCLocked(c, e)
	})
}
