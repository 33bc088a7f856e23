package shared

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/internal/answer"
	"github.com/davidwartell/go-grpcpool/internal/pause"
	"github.com/davidwartell/go-grpcpool/internal/told"
	"github.com/davidwartell/go-grpcpool/scale"
)

// attempt is one try to have a channel that may be lent: a test of the current one, and
// if that fails a dial of another. It belongs to the pool: it goes on when callers stop
// waiting for it.
type attempt struct {
	done chan struct{} // closed when the attempt is over
	err  error         // readable once done is closed

	// Callers who do not wait until there is a channel are told when it takes long.
	late    chan struct{} // closed then
	lateErr error         // readable once late is closed
}

// join returns the attempt under way, or begins one. After a failed dial there is none
// until the next is due: join then returns the dial's error, or waits until the next is
// due if wait is set. It also returns that error while another caller's attempt runs
// after a failed one: one caller at a time finds out whether an outage is over.
func (p *Pool) join(ctx context.Context, wait bool) (*attempt, error) {
	for {
		raise(&p.askedAt, int64(p.now()))
		p.mu.Lock()
		running, last := p.attempt, p.lastErr
		a, pause, err := p.joinOrBeginLocked(ctx)
		var sooner <-chan struct{}
		if pause > 0 && wait {
			sooner = p.soonerLocked()
		}
		p.mu.Unlock()
		if a != nil && a == running && last != nil && !wait {
			p.demand()
			return nil, last
		}
		if a != nil || err != nil {
			return a, err
		}
		p.demand()
		if !wait {
			return nil, last
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-sooner:
			timer.Stop()
		case <-p.ctx.Done():
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return nil, newWaitError(ctx, p.cfg.name, last)
		}
	}
}

// attempting reports whether an attempt is under way.
func (p *Pool) attempting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.attempt != nil
}

// joinOrBeginLocked returns an attempt, or how long to wait before one may begin.
func (p *Pool) joinOrBeginLocked(ctx context.Context) (_ *attempt, wait time.Duration, _ error) {
	switch {
	case p.closing:
		return nil, 0, grpcpool.ErrClosed
	case p.mistakes != nil:
		return nil, 0, p.mistakes
	case p.attempt != nil:
		return p.attempt, 0, nil
	}
	c := p.current.Load()
	if c == nil || c.health.Load() == failed || c.health.Load() == unconnected {
		if wait = time.Until(p.nextTry); wait > 0 {
			return nil, wait, nil
		}
	}
	p.attempt = &attempt{done: make(chan struct{}), late: make(chan struct{})}
	p.live++
	go p.runAttempt(ctx, p.attempt, c)
	return p.attempt, 0, nil
}

// renewInBackground begins an attempt for the leases that are out, unless one runs. If
// it is too early for one, pause is how long to wait.
func (p *Pool) renewInBackground() (pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, pause, _ = p.joinOrBeginLocked(p.ctx) // fails only if the pool is closing
	return pause
}

// runAttempt keeps the values of ctx, for tracing, but not its end: the attempt outlives
// the caller who began it. It does not keep the caller's outgoing metadata either, which
// may hold one user's credentials.
func (p *Pool) runAttempt(ctx context.Context, a *attempt, c *channel) {
	defer p.finished()
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ctx = metadata.NewOutgoingContext(ctx, nil)
	ctx = told.WithLate(ctx, func(err error) { p.noteLate(a, asNotOK(err)) })
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)() //nolint:contextcheck // ends the attempt with the pool

	err := p.renew(ctx, c)
	if err != nil && p.ctx.Err() != nil {
		err = grpcpool.ErrClosed
	}
	p.mu.Lock()
	before := p.lastErr
	p.attempt = nil
	p.setLastErrLocked(err)
	if err == nil {
		p.downSince = time.Time{}
	}
	p.mu.Unlock()
	p.reportChange(before, err)
	a.err = err
	close(a.done)
	p.wakeWatchdog()
}

// noteLate is told why a, which goes on, has no channel yet. It counts as failed for those
// who do not wait.
func (p *Pool) noteLate(a *attempt, err error) {
	p.mu.Lock()
	if p.attempt != a || p.closing {
		p.mu.Unlock()
		return
	}
	before := p.lastErr
	p.setLastErrLocked(err)
	if a.lateErr == nil {
		a.lateErr = err
		close(a.late)
	}
	p.mu.Unlock()
	p.reportChange(before, err)
}

// reportChange reports the begin or the end of a time without a connection.
func (p *Pool) reportChange(before, now error) {
	switch {
	case errors.Is(now, grpcpool.ErrClosed):
	case before == nil && now != nil:
		p.emit(Event{Kind: EventFailing, Text: now.Error()})
	case before != nil && now == nil:
		p.emit(Event{Kind: EventRecovered, Text: "last error: " + before.Error()})
	}
}

// renew tests c, and replaces it if it fails. A channel that has failed before is not
// tested again before the dial, as that could cost a test timeout each time; unless it is
// supervised.
func (p *Pool) renew(ctx context.Context, c *channel) error {
	if p.channels != nil && (c == nil || !c.connected.Load()) {
		err := p.connect(ctx)
		if c = p.current.Load(); err != nil && c != nil && c.supervised.Load() && p.testRegained(ctx, c) {
			return nil
		}
		return err
	}
	if c != nil && c.askSupervised() {
		return p.renewSupervised(ctx, c)
	}
	if c != nil && (c.health.Load() != failed || !p.mayReplace(c)) {
		err := p.test(ctx, c, p.testTimeout())
		if err == nil {
			return nil
		}
		c.health.Store(failed)
		if p.postponeDial(c) {
			return err
		}
		if !p.mayReplace(c) {
			p.postponeTry(pause.Refused(p.now() - c.born))
			return err
		}
		return p.dialBeside(ctx, c)
	}
	err := p.dialBeside(ctx, c)
	if err != nil && c != nil && c.conn.GetState() == connectivity.Ready && p.test(ctx, c, p.testTimeout()) == nil {
		return nil // no other channel could be dialled, but this one works again
	}
	return err
}

// test asks the factory whether c is alive.
func (p *Pool) test(ctx context.Context, c *channel, atMost time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	ctx, end := p.trace(ctx, OpTest)
	if c.watcher != nil && c.supervised.Load() {
		ctx = told.WithProof(ctx, c.watcher.LastProof)
	}
	start := p.now()
	var answer error
	err := p.callFactory(ctx, testCall, func() { answer = p.factory.ConnectionOk(ctx, c.conn) }, func() {})
	if err == nil {
		err = answer
	}
	end(err)
	took := p.now() - start
	c.recovery.silent = err != nil && ctx.Err() != nil
	p.counts.tests.Add(1)
	if err == nil {
		p.noteAnswer(took)
		c.prove(p.now())
		p.emit(Event{Kind: EventTested, Channel: c.id, Took: took})
		return nil
	}
	p.counts.testsFailed.Add(1)
	p.emit(Event{Kind: EventTestFailed, Channel: c.id, Took: took, Text: err.Error()})
	if ctx.Err() != nil && c.heardSince(start) {
		c.prove(max(start, time.Duration(c.provenAt.Load()))) // the test was too slow, but RPCs were answered meanwhile
		return nil
	}
	if provedAlive(err) || c.testInconclusive(ctx, err) {
		c.prove(p.now()) // so that it is lent on
		return nil
	}
	return asNotOK(err)
}

// testInconclusive reports whether a test that ended with err says nothing about c. c is
// then lent on: another channel would do no better.
//
// A test that was not sent says nothing, for example when the program's credentials
// fail. A test that waited for a stream until its time was up says nothing about a
// channel that can be inspected, since package scale watches its connections. For any
// other channel it is the only way to find out that the channel is full and dead.
func (c *channel) testInconclusive(ctx context.Context, err error) bool {
	if c.health.Load() == failed {
		return false
	}
	unsent := errors.As(err, new(*answer.NoVerdictError))
	if ctx.Err() == nil {
		return unsent
	}
	return c.inspector != nil && (unsent || full(c.inspector.Snapshot()))
}

// provedAlive reports whether a test ended with err, without an answer, as the channel itself
// has proved meanwhile that it lives.
func provedAlive(err error) bool {
	var unsure *answer.NoVerdictError
	return errors.As(err, &unsure) && unsure.Alive
}

// full reports whether calls use every stream of every connection.
func full(now scale.Channel) bool {
	connections := 0
	for i := range now.Subchannels {
		s := &now.Subchannels[i]
		connections += len(s.Connections)
		if s.Waiters > 0 {
			continue
		}
		for j := range s.Connections {
			if int64(s.Connections[j].InFlight) < int64(s.Connections[j].Limit) {
				return false
			}
		}
	}
	return connections > 0
}

// testTimeout is how long a test may take.
func (p *Pool) testTimeout() time.Duration {
	return max(p.cfg.testTimeout, min(slowServerFactor*time.Duration(p.lastAnswer.Load()), maxSlowTest))
}

// noteAnswer notes how long the server took for a dial or a test.
func (p *Pool) noteAnswer(took time.Duration) { p.lastAnswer.Store(int64(took)) }

// dial makes a new channel and replaces the current one with it.
func (p *Pool) dial(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.dialTimeout)
	defer cancel()
	ctx, end := p.trace(ctx, OpDial)
	l := &ledger{pool: p, channel: p.counts.dialled.Add(1)}
	start := time.Now()
	conn, inspector, err := p.newConnection(ctx, l)
	end(err)
	took := time.Since(start)
	p.counts.dials.Add(1)
	if err != nil {
		p.counts.dialsFailed.Add(1)
		p.noteFailedDial(start, err)
		failed := Event{Kind: EventOpenFailed, Channel: l.channel, Took: took, Text: err.Error()}
		if !errors.As(err, new(*stuckError)) { // its connections may still be open
			failed.Connections = l.openConnections()
		}
		p.emit(failed)
		return asNotOK(err)
	}
	p.noteAnswer(took)
	watcher, _ := inspector.(grpcpool.Supervisor)
	c := &channel{pool: p, conn: conn, inspector: inspector, watcher: watcher, ledger: l, id: l.channel, born: p.now()}
	c.connected.Store(true)
	return p.install(c, took)
}

// connect connects the current channel, which has not been connected, or makes one and
// connects it. One that cannot be connected is kept if it watches its connections, as it
// dials again by itself, or if RPCs use it. Otherwise it is closed.
func (p *Pool) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.dialTimeout)
	defer cancel()
	ctx, end := p.trace(ctx, OpDial)
	start := time.Now()
	c, err := p.makeChannel(ctx)
	if err == nil {
		c.regained.Store(false)
		var answer error
		err = p.callFactory(ctx, connectCall, func() { answer = p.channels.Connect(ctx, c.conn, c.inspector) }, func() {})
		if err == nil {
			err = answer
		}
	}
	end(err)
	took := time.Since(start)
	p.counts.dials.Add(1)
	if err == nil {
		c.connected.Store(true)
		p.noteAnswer(took)
		c.prove(p.now())
		p.endPauses()
		c.noteOpened(took)
		return nil
	}
	p.counts.dialsFailed.Add(1)
	p.noteFailedDial(start, err)
	failing := Event{Kind: EventOpenFailed, Took: took, Text: err.Error()}
	if c != nil {
		failing.Channel = c.id
		if p.discard(c) {
			if !errors.As(err, new(*stuckError)) { // its connections may still be open
				failing.Connections = c.ledger.openConnections()
			}
		} else {
			c.health.Store(failed)
		}
	}
	p.emit(failing)
	return asNotOK(err)
}

// discard closes a channel that could not be connected, unless it is to be kept, and
// reports whether it did.
func (p *Pool) discard(c *channel) bool {
	seen := c.tally.Load()
	if seen&leases != 0 || c.called.Load() || c.supervised.Load() {
		return false
	}
	p.mu.Lock()
	closed := c.tally.CompareAndSwap(seen, seen|retired|closing)
	if closed {
		if p.current.Load() == c {
			p.setCurrentLocked(nil)
		}
		delete(p.open, c)
	}
	p.mu.Unlock()
	if closed {
		_ = c.conn.Close() // nobody else closes it
		p.finished()
	}
	return closed
}

// noteOpened reports that c has been opened, once.
func (c *channel) noteOpened(took time.Duration) {
	if !c.opened.Swap(true) {
		c.pool.emit(Event{Kind: EventOpened, Channel: c.id, Took: took})
	}
}

// mayReplace reports whether another channel may be dialled in the place of c, which has
// failed its test. For RPCs made on the pool none is while c has no connection: the pool
// would dial more than they do by themselves. A Get may have another.
func (p *Pool) mayReplace(c *channel) bool {
	return p.channels == nil || p.counts.waiting.Load() > 0 || p.now()-time.Duration(p.askedAt.Load()) < ownRecovery ||
		c.conn.GetState() == connectivity.Ready
}

// dialBeside dials in the place of c, which has failed. A handshake that is late is given up
// when c may work again.
func (p *Pool) dialBeside(ctx context.Context, c *channel) error {
	if c == nil {
		return p.dial(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer c.onRegained.Store(nil)
	return p.dial(told.WithLate(ctx, func(err error) {
		told.TellLate(ctx, err)
		c.onRegained.Store(&cancel)
		if c.regained.Load() || !c.supervised.Load() && c.conn.GetState() == connectivity.Ready {
			cancel()
		}
	}))
}

// newConnection asks the factory for a channel, and for its inspector if the factory
// offers one. A channel that comes too late is closed.
func (p *Pool) newConnection(ctx context.Context, l *ledger) (*grpc.ClientConn, grpcpool.Inspector, error) {
	var conn *grpc.ClientConn
	var inspector grpcpool.Inspector
	var answer error
	err := p.callFactory(ctx, dialCall, func() {
		conn, inspector, answer = p.askFactory(ctx, l)
	}, func() {
		if conn != nil {
			_ = conn.Close() // it is not needed, and nobody is left to get the error
		}
		if n := l.openConnections(); n > 0 {
			p.emit(Event{Kind: EventClosedRetired, Channel: l.channel, Connections: n, Text: "it came after the dial had been given up"})
		}
	})
	switch {
	case err != nil:
		return nil, nil, err
	case answer == nil && conn == nil:
		return nil, nil, errors.New("grpcpool: the factory's NewConnection returned neither a channel nor an error; it must return one of them")
	}
	return conn, inspector, answer
}

// askFactory makes the call. A channel without an inspector counts as one connection.
func (p *Pool) askFactory(ctx context.Context, l *ledger) (*grpc.ClientConn, grpcpool.Inspector, error) {
	if f, ok := p.factory.(grpcpool.InspectableFactory); ok {
		return f.NewInspectedConnection(grpcpool.ContextWithEvents(ctx, l.report))
	}
	start := time.Now()
	conn, err := p.factory.NewConnection(ctx)
	switch took := time.Since(start); {
	case err != nil:
		l.reportDial("", took, err)
	case conn != nil:
		l.reportDial(conn.Target(), took, nil)
	}
	return conn, nil, err
}

// install makes c the current channel, and retires the one before it. took is how long
// the dial of c took.
func (p *Pool) install(c *channel, took time.Duration) error {
	c.idle.since = c.born
	c.prove(c.born)
	c.askSupervised()
	p.mu.Lock()
	if p.closing {
		p.mu.Unlock()
		_ = c.conn.Close() // it is not needed, and nobody is left to get the error
		p.emit(Event{Kind: EventClosedShutdown, Channel: c.id, Connections: c.ledger.openConnections()})
		return grpcpool.ErrClosed
	}
	old := p.current.Load()
	p.setCurrentLocked(c)
	p.open[c] = struct{}{}
	p.live++
	p.nextTry, p.nextDial = time.Time{}, time.Time{}
	p.target = c.conn.Target()
	p.mu.Unlock()
	if c.supervised.Load() && c.lastProof() < 0 {
		c.noteEvent(EventLost) // it was lost before events of c could be told to it
	}
	c.noteOpened(took)
	if old != nil {
		p.counts.replaced.Add(1)
		p.emit(Event{Kind: EventRetired, Channel: old.id, Took: p.now() - old.born, Text: plural(old.leasesOut(), "lease") + " out"})
		if old.retire() && old.inspector != nil {
			// The network is back: RPCs that wait on the old channel need not wait for
			// the end of grpc-go's backoff, which grows to two minutes.
			old.inspector.RetryNow()
		}
	}
	return nil
}
