package shared

import (
	"context"
	"errors"
	"time"

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
		raise(&p.askedAt, max(int64(p.now()), 1))
		p.mu.Lock()
		running, last := p.attempt, p.lastErr
		a, pause, err := p.joinOrBeginLocked(ctx)
		var sooner <-chan struct{}
		if pause > 0 && wait {
			sooner = p.soonerLocked()
		}
		p.mu.Unlock()
		if a != nil && a == running && last != nil && !wait {
			p.demand() //nolint:contextcheck // the question to the channel ends at once
			return nil, last
		}
		if a != nil || err != nil {
			return a, err
		}
		p.demand() //nolint:contextcheck // the question to the channel ends at once
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
	ctx = p.withLog(metadata.NewOutgoingContext(ctx, nil))
	ctx = told.WithLate(ctx, func(err error) { p.noteLate(a, asNotOK(err)) })
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)() //nolint:contextcheck // ends the attempt with the pool

	err := p.renew(ctx, c)
	if c = p.current.Load(); err == nil && c != nil {
		c.noteOpened(p.now() - c.born) // unless that has been done: RPCs have connected it meanwhile
	}
	if err != nil && p.ctx.Err() != nil {
		err = grpcpool.ErrClosed
	}
	p.mu.Lock()
	p.attempt = nil
	p.setLastErrLocked(err)
	if err == nil {
		p.downSince = time.Time{}
	}
	p.mu.Unlock()
	p.reportChanges()
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
	p.setLastErrLocked(err)
	if a.lateErr == nil {
		a.lateErr = err
		close(a.late)
	}
	p.mu.Unlock()
	p.reportChanges()
}

// renew tests c, and replaces it if it fails. A channel that has failed before is not
// tested again before the dial, as that could cost a test timeout each time; unless it is
// supervised, or has a new connection.
func (p *Pool) renew(ctx context.Context, c *channel) error {
	switch {
	case p.channels != nil && (c == nil || !c.connected.Load()):
		return p.renewUnconnected(ctx)
	case c != nil && c.askSupervised():
		return p.renewSupervised(ctx, c)
	case c != nil && (c.health.Load() != failed || c.regained.Load() || !p.mayReplace(c.conn.GetState())):
		return p.renewTested(ctx, c)
	}
	err := p.dialBeside(ctx, c)
	if err != nil && c != nil && c.conn.GetState() == connectivity.Ready && p.test(ctx, c, p.testTimeout()) == nil {
		return nil // no other channel could be dialled, but this one works again
	}
	return err
}

// renewUnconnected connects a channel that has not been connected. If RPCs have connected it
// meanwhile, it is tested.
func (p *Pool) renewUnconnected(ctx context.Context) error {
	err := p.connect(ctx)
	if errors.As(err, new(*stuckError)) {
		return err
	}
	if c := p.current.Load(); err != nil && c != nil && c.supervised.Load() && p.testRegained(ctx, c) {
		return nil
	}
	return err
}

// renewTested tests c, and replaces it if it fails and may be replaced now.
func (p *Pool) renewTested(ctx context.Context, c *channel) error {
	c.regained.Store(false)
	err := p.test(ctx, c, p.testTimeout())
	if err == nil {
		return nil
	}
	c.health.Store(failed)
	if p.postponeDial(c) {
		return err
	}
	if !p.mayReplace(c.conn.GetState()) {
		p.postponeTry(pause.Refused(p.now() - c.born))
		return err
	}
	return p.dialBeside(ctx, c)
}

// mayReplace reports whether another channel may be dialled in the place of one that has
// failed its test in the given state. For RPCs made on the pool none is while it has no
// connection: the pool would dial more than they do by themselves. A Get may have another.
func (p *Pool) mayReplace(state connectivity.State) bool {
	return p.channels == nil || state == connectivity.Ready || p.askedLately()
}

// askedLately reports whether a Get waits, or has lately found no channel that may be lent.
func (p *Pool) askedLately() bool {
	if p.counts.waiting.Load() > 0 {
		return true
	}
	asked := time.Duration(p.askedAt.Load())
	return asked > 0 && p.now()-asked < ownRecovery
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
