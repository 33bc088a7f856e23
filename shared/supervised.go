package shared

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/connectivity"

	"github.com/davidwartell/go-grpcpool/internal/event"
	"github.com/davidwartell/go-grpcpool/internal/pause"
	"github.com/davidwartell/go-grpcpool/scale"
)

// A channel is supervised if it watches its own connections, as those of package scale do.
// It knows more than the pool, so the pool leaves to it what it does by itself:
//
//   - What the channel has proved is not tested. A lease is tested for by the PingFunc
//     when the channel's own proof is older than proofLasts, or after a time without leases,
//     when the proof is of a probe that happens to be recent: a connection that died since
//     is then found before the lease, and not by the first call on it.
//   - While leases are out, nothing is tested at intervals. A connection that ends, or an
//     RPC that ends with Unavailable, prompts a test.
//   - A channel that has lost its connections makes new ones. The pool waits for them, and
//     dials no other channel beside it for ownRecovery. A new connection prompts a test.
//
// A channel with a connection that fails its test is replaced as any other: the
// connection lives, so the channel will not do anything about it.

const (
	// ownRecovery is for how long the pool leaves a channel that has failed to itself.
	// Then it dials another, in case the channel is at fault and not the network; and so on
	// each time that twice as long has passed, up to longestRecovery.
	ownRecovery     = 10 * time.Second
	longestRecovery = time.Minute

	// While a handshake is late, the channel is left to itself for queueRecovery at least,
	// which is gRPC's own patience with a dial.
	queueRecovery = 20 * time.Second

	// Before another channel is dialled, this one dials once more. It takes mostOwnDial at
	// most, in which a handshake becomes late.
	mostOwnDial = 3 * time.Second
	ownDialPoll = 20 * time.Millisecond

	// A test that has failed is made again, furtherTest long: when that is over, the channel
	// has ejected a connection that was dead, and has another where one can be had. The
	// last of mostTests comes when the second was on such a connection too.
	furtherTest = 2500 * time.Millisecond
	mostTests   = 3

	// stateLag is how much later than a connection the state of its channel may come.
	stateLag = 100 * time.Millisecond

	// provedEnough is the age of a proof up to which a supervised channel is lent while other
	// leases are out, as package scale puts calls on a connection then. A channel without
	// leases for as long is unused.
	provedEnough = 5 * time.Second

	// demandPause is how often callers who are turned away make the channel dial. It
	// decides by itself how soon it does.
	demandPause = 25 * time.Millisecond
)

// recovery is what attempts remember of a supervised channel that has failed its test.
type recovery struct {
	since    time.Duration // on the pool's clock, when it failed; 0 if it has not
	patience time.Duration // how long it is left to itself
	until    time.Duration // it is left to itself until then
	silent   bool          // its last test had no answer
	queued   time.Duration // on the pool's clock, when it was first seen to wait for a handshake; 0: it does not
}

// queues reports whether the channel keeps its place in a server's queue, late being whether
// a handshake is late now.
func (r *recovery) queues(now time.Duration, late bool) bool {
	switch {
	case !late:
		r.queued = 0
	case r.queued == 0:
		r.queued = now
	}
	return late && now < r.queued+queueRecovery
}

// begin notes that the channel has failed its test.
func (r *recovery) begin(now time.Duration) {
	if r.since == 0 {
		r.since, r.patience, r.until = now, ownRecovery, now+ownRecovery
	}
}

// extend leaves the channel to itself for longer, as another could not be had either.
func (r *recovery) extend(now time.Duration) {
	r.patience = min(2*r.patience, longestRecovery)
	r.until = now + r.patience
}

// askSupervised asks the channel whether it watches its connections.
func (c *channel) askSupervised() bool {
	if c.watcher == nil {
		return false
	}
	now := c.watcher.Supervised()
	if !now && c.conn.GetState() == connectivity.Idle {
		return c.supervised.Load() // gRPC has closed its unused connections, and a test would open them again
	}
	if c.supervised.Load() != now {
		c.supervised.Store(now)
	}
	return now
}

// lastProof is when the channel last had proof that a connection was alive, on the pool's
// clock; negative if it has none.
func (c *channel) lastProof() time.Duration {
	at := c.watcher.LastProof()
	if at.IsZero() {
		return -1
	}
	return at.Sub(c.pool.epoch)
}

// proveByItself takes over the channel's own proof of life, unless it is too old. It does
// not if the channel has failed its test, or has lost a connection since, or has been unused.
func (c *channel) proveByItself() bool {
	if c.watcher == nil || c.health.Load() == failed || c.lost.Load() || c.unused() || !c.askSupervised() {
		return false
	}
	at := c.lastProof()
	if at < 0 || c.pool.now()-at >= proofLasts {
		return false
	}
	c.prove(at)
	c.pool.wakeWatchdog() // so that the proof expires
	return true
}

// noteEvent is told what happened to a connection of c.
func (c *channel) noteEvent(kind EventKind) {
	c.noteConnected(kind)
	if c.watcher == nil {
		return
	}
	switch kind {
	case EventDialled:
		c.regained.Store(true)
		if f := c.onRegained.Load(); f != nil {
			(*f)()
		}
		if c.health.Load() == failed {
			c.pool.tryNow()
		}
	case EventLost, EventEjected:
		c.lost.Store(true)
		c.health.CompareAndSwap(proven, unproven)
		if c.tally.Load()&leases != 0 {
			c.pool.wakeWatchdog()
		}
	default: // a connection that ends in good order is no loss
	}
}

// noteConnected is told what happened to a connection of c: whether it has one.
func (c *channel) noteConnected(kind EventKind) {
	switch kind {
	case EventDialled:
		c.awaySince.Store(0)
		c.connections.Add(1)
		if !c.connected.Swap(true) && c.health.CompareAndSwap(unconnected, unproven) && !c.pool.attempting() {
			c.noteOpened(c.pool.now() - c.born) // RPCs have connected it
		}
		if c.pool.away.Load() {
			c.pool.noteBack(c)
		}
	default:
		if event.EndsConnection(kind) && !c.hasConnection() {
			c.awaySince.Store(int64(c.pool.now()))
		}
	}
}

// hasConnection reports whether c still has one, as far as it tells.
func (c *channel) hasConnection() bool {
	if c.watcher != nil {
		return c.lastProof() >= 0
	}
	return c.ledger.openConnections() > 0
}

// renewSupervised tests c. If c fails, it is left to itself, or replaced.
func (p *Pool) renewSupervised(ctx context.Context, c *channel) error {
	if c.proveByItself() {
		return nil
	}
	if c.health.Load() != failed {
		c.recovery = recovery{}
	}
	state, err := p.testConnected(ctx, c)
	if err == nil {
		c.recovery = recovery{}
		return nil
	}
	c.health.Store(failed)
	now := p.now()
	c.recovery.begin(now)
	if c.leftToItself(now, state) || !p.mayReplace(state) {
		p.postponeTry(pause.Refused(now - c.recovery.since))
		return err
	}
	if state != connectivity.Ready && c.getsThrough(ctx) && p.testRegained(ctx, c) {
		return nil
	}
	if now = p.now(); c.recovery.queues(now, c.handshakeIsLate()) {
		p.postponeTry(pause.Refused(now - c.recovery.since))
		return err
	}
	if p.postponeDial(c) {
		return err
	}
	if err = p.dialBeside(ctx, c); err == nil {
		return nil
	}
	c.recovery.extend(p.now())
	if p.testRegained(ctx, c) {
		return nil
	}
	return err
}

// testConnected tests c, and again if it has had a new connection since the test began, or has
// one that gRPC has not heard of yet: the event of a connection comes before the channel's
// state. The state is what c was in after the last test and before it was asked for its
// connections: so one that is READY has failed its test on a connection that it still has.
func (p *Pool) testConnected(ctx context.Context, c *channel) (state connectivity.State, err error) {
	c.regained.Store(false)
	for tests := 1; ; tests++ {
		start := p.now()
		err = p.testAgain(ctx, c)
		state = c.conn.GetState()
		unheard := state != connectivity.Ready && c.hasConnection()
		if err == nil || ctx.Err() != nil || tests == mostTests || !c.regained.Swap(false) && !c.connectedSince(start) && !unheard {
			return state, err
		}
		if unheard {
			soon, cancel := context.WithTimeout(ctx, stateLag)
			c.conn.WaitForStateChange(soon, state)
			cancel()
		}
	}
}

// testRegained tests c once more if it has a new connection, and reports whether it is well.
func (p *Pool) testRegained(ctx context.Context, c *channel) bool {
	well := ctx.Err() == nil && c.regained.Swap(false) && p.testAgain(ctx, c) == nil
	if well {
		c.recovery = recovery{}
	}
	return well
}

// testAgain tests c, and again if a test that has failed may have been on a connection that
// is dead or has just ended: by then c has another where one can be had. A test that ended
// before its time may have ended with its connection, also if the event of that is still to
// come. A channel that has failed before is tested once.
func (p *Pool) testAgain(ctx context.Context, c *channel) error {
	atMost := p.testTimeout()
	for tests := 1; ; tests++ {
		c.lost.Store(false)
		start := p.now()
		err := p.test(ctx, c, atMost)
		if err == nil || ctx.Err() != nil || c.recovery.since > 0 || !c.otherConnection(start) {
			return err
		}
		if tests > 1 && c.recovery.silent && !c.lost.Load() || tests == mostTests {
			return err
		}
		atMost = max(atMost, furtherTest)
	}
}

// otherConnection reports whether a further test of c, after one that began at start and
// failed, may be on another connection.
func (c *channel) otherConnection(start time.Duration) bool {
	switch c.conn.GetState() {
	case connectivity.Ready: // unless the channel has proved meanwhile that it lives, and only the test has no answer
		return !c.recovery.silent || c.lastProof() <= start || c.connectedSince(start)
	case connectivity.Idle, connectivity.Connecting: // unless the test has waited for it in vain
		return !c.recovery.silent
	case connectivity.TransientFailure, connectivity.Shutdown:
	}
	return false
}

// connectedSince reports whether c has a connection that has been READY only since the given
// time, also if its event has not been told yet.
func (c *channel) connectedSince(at time.Duration) bool {
	since := c.pool.epoch.Add(at)
	return slices.ContainsFunc(c.watcher.Snapshot().Subchannels, func(s scale.Subchannel) bool {
		return slices.ContainsFunc(s.Connections, func(one scale.Connection) bool { return !one.Since.Before(since) })
	})
}

// leftToItself reports whether c, which has just failed its test in the given state, will recover by itself
// if anything can: it has no connection, or one that it is about to find dead. One for which
// a server has begun a handshake keeps its place in the server's queue.
func (c *channel) leftToItself(now time.Duration, state connectivity.State) bool {
	if now >= c.recovery.until && !c.recovery.queues(now, c.handshakeIsLate()) {
		return false
	}
	switch state {
	case connectivity.Idle, connectivity.Connecting, connectivity.TransientFailure:
		return true
	case connectivity.Ready:
		return c.recovery.silent && now-c.lastProof() > c.pool.testTimeout()
	case connectivity.Shutdown:
	}
	return false
}

// getsThrough has c dial once more, as another channel is about to be dialled in its place,
// and reports whether it reaches a server: two handshakes would be more than one client's
// share of a server that has just come back.
func (c *channel) getsThrough(ctx context.Context) bool {
	c.inspector.RetryNow()
	timer := time.NewTimer(mostOwnDial)
	defer timer.Stop()
	poll := time.NewTicker(ownDialPoll)
	defer poll.Stop()
	for {
		select {
		case <-poll.C:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
		if c.regained.Load() || c.handshakeIsLate() {
			return true
		}
		if !slices.ContainsFunc(c.watcher.Snapshot().Subchannels, func(s scale.Subchannel) bool { return s.Dialling > 0 }) {
			return false
		}
	}
}

// handshakeIsLate reports whether c waits for a server that has begun a handshake.
func (c *channel) handshakeIsLate() bool {
	now := c.watcher.Snapshot()
	return slices.ContainsFunc(now.Subchannels, func(s scale.Subchannel) bool {
		return s.State == connectivity.TransientFailure && s.Late > 0
	})
}

// demand tells a channel that has lost its connections that a caller was turned away: it
// dials more often while there is somebody to dial for.
func (p *Pool) demand() {
	c := p.current.Load()
	if c == nil || c.health.Load() != failed || !c.supervised.Load() {
		return
	}
	last, now := p.demandedAt.Load(), int64(p.now())
	if now-last >= int64(demandPause) && p.demandedAt.CompareAndSwap(last, now) {
		c.conn.Connect() // if it is idle
		if asks, ok := c.watcher.(interface {
			PickError(ctx context.Context, method string) error
		}); ok {
			_ = asks.PickError(context.Background(), "") // if it fails: to ask is demand
		}
	}
}
