package shared

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool"
)

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
		if c.health.Load() == failed && !c.askSupervised() {
			c.conn.ResetConnectBackoff() // it grows to two minutes, and the pool has made its own pause
		}
		var answer error
		err = p.callFactory(ctx, connectCall, func() { answer = p.channels.Connect(ctx, c.conn, c.inspector) }, func() {})
		if err == nil {
			err = answer
		}
	}
	end(err)
	took := time.Since(start)
	if err == nil {
		c.connected.Store(true)
		p.noteAnswer(took)
		c.prove(p.now())
		p.endPauses()
		c.noteOpened(took)
		return nil
	}
	p.counts.dials.Add(1)
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

// noteOpened counts and reports that c has been opened, once.
func (c *channel) noteOpened(took time.Duration) {
	if !c.opened.Swap(true) {
		c.pool.counts.dials.Add(1)
		c.pool.emit(Event{Kind: EventOpened, Channel: c.id, Took: took})
	}
}

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
	if err != nil {
		p.counts.dials.Add(1)
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
		p.counts.dials.Add(1)
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
