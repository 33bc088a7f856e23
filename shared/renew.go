package shared

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/internal/answer"
)

// attempt is one try at having a channel that may be lent: a test of the one
// there is, then, if need be, a dial of another. It belongs to the pool: callers
// who wait for it may come and go.
type attempt struct {
	done chan struct{} // closed when the attempt is over
	err  error         // readable once done is closed
}

// join returns the attempt under way, or begins one. After a failed dial there
// is none until the next is due: join then fails with that error at once, or, if
// wait is set, first waits until it is due. It also fails at once while somebody
// else's attempt follows a failed one: one caller at a time finds out whether an
// outage is over.
func (p *Pool) join(ctx context.Context, wait bool) (*attempt, error) {
	for {
		p.mu.Lock()
		others, last := p.attempt, p.lastErr
		a, pause, err := p.joinLocked(ctx)
		p.mu.Unlock()
		if a != nil && a == others && last != nil && !wait {
			return nil, last
		}
		if a != nil || err != nil {
			return a, err
		}
		if !wait {
			return nil, last
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-p.ctx.Done():
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return nil, newWaitError(ctx, p.cfg.name, last)
		}
	}
}

// joinLocked returns an attempt, or how long to wait before one may begin.
func (p *Pool) joinLocked(ctx context.Context) (_ *attempt, pause time.Duration, _ error) {
	switch {
	case p.closing:
		return nil, 0, grpcpool.ErrClosed
	case p.factory == nil:
		return nil, 0, errNoFactory
	case p.attempt != nil:
		return p.attempt, 0, nil
	}
	c := p.current.Load()
	if c == nil || c.health.Load() == failed {
		if pause = time.Until(p.nextDial); pause > 0 {
			return nil, pause, nil
		}
	}
	p.attempt = &attempt{done: make(chan struct{})}
	p.live++
	go p.run(ctx, p.attempt, c)
	return p.attempt, 0, nil
}

// renewInBackground begins an attempt for the leases that are out, if none is
// under way and one is allowed.
func (p *Pool) renewInBackground() (pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, pause, _ = p.joinLocked(p.ctx) // an error is that the pool is closing
	return pause
}

// run carries an attempt out. It keeps the values of ctx, for tracing, but not
// its end: the attempt outlives the caller who began it. Nor does it keep the
// caller's outgoing metadata, which may speak for one user.
func (p *Pool) run(ctx context.Context, a *attempt, c *channel) {
	defer p.finished()
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ctx = metadata.NewOutgoingContext(ctx, nil)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)() //nolint:contextcheck // the pool's end is an end of its own

	err := p.renew(ctx, c)
	if err != nil && p.ctx.Err() != nil {
		err = grpcpool.ErrClosed
	}
	p.mu.Lock()
	before := p.lastErr
	p.attempt, p.lastErr = nil, err
	p.mu.Unlock()
	p.emitChange(before, err)
	a.err = err
	close(a.done)
	p.poke()
}

func (p *Pool) emitChange(before, now error) {
	switch {
	case errors.Is(now, grpcpool.ErrClosed):
	case before == nil && now != nil:
		p.emit(Event{Kind: EventFailing, Text: now.Error()})
	case before != nil && now == nil:
		p.emit(Event{Kind: EventRecovered, Text: "after: " + before.Error()})
	}
}

// renew tests c and replaces it if it fails. A channel that has failed before is
// not tested again before the dial: if it does not answer, that would cost a test
// timeout each time.
func (p *Pool) renew(ctx context.Context, c *channel) error {
	if c != nil && c.health.Load() != failed {
		err := p.test(ctx, c)
		if err == nil {
			return nil
		}
		c.health.Store(failed)
		if p.tooSoon(c) {
			return err
		}
		return p.dial(ctx)
	}
	err := p.dial(ctx)
	if err != nil && c != nil && c.conn.GetState() == connectivity.Ready && p.test(ctx, c) == nil {
		return nil // no other to be had, but this one has healed by itself
	}
	return err
}

// tooSoon puts the next dial off if c, which has just failed, is younger than the
// pause between dials: a server that accepts and then fails at once would
// otherwise be dialled in a loop.
func (p *Pool) tooSoon(c *channel) bool {
	due := p.epoch.Add(c.born + dialPause())
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Now().After(due) {
		return false
	}
	p.nextDial = due
	return true
}

// test asks the factory whether c is alive.
func (p *Pool) test(ctx context.Context, c *channel) error {
	ctx, cancel := context.WithTimeout(ctx, p.testTimeout())
	defer cancel()
	ctx, end := p.begin(ctx, OpTest)
	start := p.now()
	var answer error
	err := p.outside(ctx, callOfTest, func() { answer = p.factory.ConnectionOk(ctx, c.conn) }, func() {})
	if err == nil {
		err = answer
	}
	end(err)
	took := p.now() - start
	p.counts.tests.Add(1)
	if err == nil {
		p.answered(took)
		c.prove(p.now())
		p.emit(Event{Kind: EventTested, Channel: c.id, Took: took})
		return nil
	}
	p.counts.testsFailed.Add(1)
	p.emit(Event{Kind: EventTestFailed, Channel: c.id, Took: took, Text: err.Error()})
	if ctx.Err() != nil && c.heardSince(start) {
		c.prove(max(start, time.Duration(c.provenAt.Load()))) // too slow for a test, but RPCs have been answered meanwhile
		return nil
	}
	if c.undecided(ctx, err) {
		c.prove(p.now()) // as far as lending goes
		return nil
	}
	return notOK(err)
}

// undecided reports whether a test that ended with err says nothing about c, which
// is then lent on: another channel would do no better. That is so when the test was
// not sent, because the program's credentials fail, say, or because calls have every
// stream: a call tells by itself how it fares. A test that waited until it was given
// up says nothing about a channel that looks after its own connections. Of another
// one it is the only way to find out that it is full and dead.
func (c *channel) undecided(ctx context.Context, err error) bool {
	if c.health.Load() == failed {
		return false
	}
	unsent := errors.As(err, new(*answer.NoVerdictError))
	if ctx.Err() == nil {
		return unsent
	}
	return c.inside != nil && (unsent || full(c.inside.Snapshot()))
}

// full reports whether calls have every stream of every connection that there is.
func full(now grpcpool.Channel) bool {
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
	return max(p.cfg.testTimeout, min(patience*time.Duration(p.lastAnswer.Load()), slowestTest))
}

// answered notes how long the server took for a dial or a test.
func (p *Pool) answered(took time.Duration) { p.lastAnswer.Store(int64(took)) }

// dial makes a new channel and puts it in the place of the current one.
func (p *Pool) dial(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.dialTimeout)
	defer cancel()
	ctx, end := p.begin(ctx, OpDial)
	told := &inside{p: p, channel: p.counts.dialled.Add(1)}
	start := time.Now()
	conn, inside, err := p.newConnection(ctx, told)
	end(err)
	took := time.Since(start)
	p.counts.dials.Add(1)
	if err != nil {
		p.counts.dialsFailed.Add(1)
		p.mu.Lock()
		p.nextDial = start.Add(dialPause())
		p.mu.Unlock()
		failed := Event{Kind: EventOpenFailed, Channel: told.channel, Took: took, Text: err.Error()}
		if !errors.As(err, new(*stuckError)) { // whose connections may be open still
			failed.Connections = told.left()
		}
		p.emit(failed)
		return notOK(err)
	}
	p.answered(took)
	return p.install(&channel{pool: p, conn: conn, inside: inside, told: told, id: told.channel, born: p.now()}, took)
}

// newConnection asks the factory for a channel, and for its inside if it offers
// that. A channel that comes too late is closed.
func (p *Pool) newConnection(ctx context.Context, told *inside) (*grpc.ClientConn, grpcpool.Inside, error) {
	var conn *grpc.ClientConn
	var inside grpcpool.Inside
	var answer error
	err := p.outside(ctx, callOfDial, func() {
		conn, inside, answer = p.askFactory(ctx, told)
	}, func() {
		if conn != nil {
			_ = conn.Close() // nobody wants it, nor its error
		}
		if n := told.left(); n > 0 {
			p.emit(Event{Kind: EventClosedRetired, Channel: told.channel, Connections: n, Text: "it came too late"})
		}
	})
	switch {
	case err != nil:
		return nil, nil, err
	case answer == nil && conn == nil:
		return nil, nil, errors.New("grpcpool: the factory returned neither a channel nor an error")
	}
	return conn, inside, answer
}

// askFactory makes the call. A channel whose inside is not to be had counts as one
// connection.
func (p *Pool) askFactory(ctx context.Context, told *inside) (*grpc.ClientConn, grpcpool.Inside, error) {
	if f, ok := p.factory.(grpcpool.Inspector); ok {
		return f.NewInspectedConnection(grpcpool.ContextWithEvents(ctx, told.tell))
	}
	start := time.Now()
	conn, err := p.factory.NewConnection(ctx)
	e := grpcpool.Event{Time: time.Now(), Took: time.Since(start)}
	switch {
	case err != nil:
		e.Kind, e.Text = grpcpool.EventKind(EventDialFailed), err.Error()
		told.tell(e)
	case conn != nil:
		e.Kind, e.Address = grpcpool.EventKind(EventDialled), conn.Target()
		told.tell(e)
	}
	return conn, nil, err
}

// install makes c, which took so long to dial, the current channel and retires
// the one before it.
func (p *Pool) install(c *channel, took time.Duration) error {
	c.idle.since = c.born
	c.prove(c.born)
	p.mu.Lock()
	if p.closing {
		p.mu.Unlock()
		_ = c.conn.Close() // nobody will want it, nor its error
		p.emit(Event{Kind: EventClosedShutdown, Channel: c.id, Connections: c.told.left()})
		return grpcpool.ErrClosed
	}
	old := p.current.Swap(c)
	p.open[c] = struct{}{}
	p.live++
	p.nextDial = time.Time{}
	p.target = c.conn.Target()
	p.mu.Unlock()
	p.emit(Event{Kind: EventOpened, Channel: c.id, Took: took})
	if old != nil {
		p.counts.replaced.Add(1)
		p.emit(Event{Kind: EventRetired, Channel: old.id, Took: p.now() - old.born, Text: fmt.Sprintf("%d leases out", old.leasesOut())})
		if old.retire() && old.inside != nil {
			// The network is back: RPCs waiting on the old channel need not sit
			// out grpc-go's backoff, which grows to two minutes.
			old.inside.RetryNow()
		}
	}
	return nil
}

// dialPause is a random time between failed dials.
func dialPause() time.Duration {
	return minDialPause + rand.N(maxDialPause-minDialPause) //nolint:gosec // jitter, not a secret
}
