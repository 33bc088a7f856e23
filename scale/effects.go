package scale

import (
	"sync"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
)

// effects are what a change of a subchannel's state leads to: calls of gRPC and of the
// child policy, which must not be made under subchannel.mu. A change notes them while it
// holds the lock; update carries them out afterwards, in the order of the fields.
//
// The order matters:
//
//   - The child is told first. A call that is served before might have the stream that
//     the child's health watch is about to need.
//   - Then the calls that wait get what is free, before gRPC has them pick again.
//   - The new picker is published before a SubConn is shut down, so that no call that
//     picks again meets a connection that is gone.
//   - Dials come last. They only begin here, on goroutines of their own.
type effects struct {
	sub *subchannel

	readdress []*connection           // to dial the subchannel's addresses of now
	tell      []balancer.SubConnState // to the child; only on gRPC's goroutine
	report    func()                  // to the child's health listener; only on gRPC's goroutine
	serve     bool                    // calls that wait
	publish   bool                    // a new picker, for calls that picked what is gone
	primary   bool                    // the oldest connection is another one: its health is to be watched
	watch     *connection             // to register the child's health listener with
	shutdown  []*connection           // SubConns to be shut down
	kill      []killing
	connect   []*connection
	dials     int           // connections to be made and dialled
	succeed   []*connection // connections whose successors are to be made and dialled
	run       []func()      // on goroutines of their own
	warn      bool          // the connection has no tap
}

// killing is a connection whose socket is to be closed, and what its RPCs are told.
type killing struct {
	conn *connection
	why  error
}

// effectsPool keeps update free of allocations: calls that wait go through it.
var effectsPool = sync.Pool{New: func() any { return new(effects) }}

// update is the one way to change a subchannel's state. change runs with s.mu held and
// notes in e what has to follow. update then unlocks and carries that out, on the
// caller's goroutine and without waiting for the network or for other goroutines.
//
// Looks that change nothing may hold s.mu by themselves.
func (s *subchannel) update(change func(e *effects)) {
	e, _ := effectsPool.Get().(*effects)
	e.sub = s
	e.locked(change)
	e.carryOut()
	*e = effects{}
	effectsPool.Put(e)
}

func (e *effects) locked(change func(e *effects)) {
	e.sub.mu.Lock()
	defer e.sub.mu.Unlock()
	change(e)
}

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
	for _, k := range e.kill {
		k.conn.tap.Kill(k.why)
	}
	e.begin()
	if e.warn {
		s.warnUntapped()
	}
}

// shutDown shuts sc down, on a goroutine of its own, as closing a connection may wait for
// the peer. Once Close lets no more goroutines begin the caller does it: a policy above
// this one may keep no list of SubConns, and sc would be left open.
func (p *policy) shutDown(sc balancer.SubConn) {
	if !p.tasks.run(sc.Shutdown) {
		sc.Shutdown()
	}
}

// tellChild tells the child what it has to know.
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

// begin begins dials and goroutines. Where the channel is closing they come to nothing.
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

// dial has n further connections dialled. They count as dialling from now on.
func (e *effects) dial(n int) {
	e.sub.starting += n
	e.dials += n
}

// takeBackDial takes one dial back. It is false if there is none.
func (e *effects) takeBackDial() bool {
	if e.dials == 0 {
		return false
	}
	e.dial(-1)
	return true
}

// dialSuccessor has the successor of c dialled. It counts as dialling from now on.
func (e *effects) dialSuccessor(c *connection) {
	e.sub.starting++
	e.succeed = append(e.succeed, c)
}

// tellLocked has the child told state.
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

// resumeOnGRPCLocked shuts c's SubConn down so that its SHUTDOWN arrives, on gRPC's
// goroutine for the channel, in onShutdownLocked. The child may be told states on that
// goroutine alone. So a timer, or a caller, that has decided something which the child
// is to hear of goes on there: the end of a backoff or of a hold, a dial that is given
// up, the end of a subchannel that has no connection left.
//
// A connection that is held stays so until then, as it keeps others from being dialled.
func (s *subchannel) resumeOnGRPCLocked(c *connection, e *effects) {
	if c.phase == phaseHeld {
		e.shutdown = append(e.shutdown, c)
		return
	}
	s.retireLocked(c, e)
}
