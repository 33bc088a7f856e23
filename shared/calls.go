package shared

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
)

// RPCs made on the pool. Over a grpcpool.ChannelFactory they run on the channel as it is, or
// on one that is made for them and is not connected yet: gRPC decides what becomes of them, and
// the channel's interceptors and stats handlers see each of them. The pool does not test
// the channel for them, and dials nothing that the channel does not dial.

// allCodes is how many status codes there are.
const allCodes = codes.Unauthenticated + 1

// waiting is the options of an RPC that has none, with WithWaitForReady.
var waiting = []grpc.CallOption{grpc.WaitForReady(true)}

// Invoke makes a unary RPC on the pool's channel, and holds a lease while it runs. It is an
// RPC on the channel in every way: whether it waits for a connection, fails or is tried again
// is decided by its options and the channel's, and its error has gRPC's status.
//
// If it ends with Unavailable or DeadlineExceeded while the channel has no connection, the
// text of the error says to which target and since when, and the error matches
// grpcpool.ErrConnectionNotOK. After Close it matches grpcpool.ErrClosed.
//
// Over a factory that is not a grpcpool.ChannelFactory, it waits for the lease as Get does;
// then its error is Get's if there is none to be had.
func (p *Pool) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	c, opts, err := p.leaseForCall(ctx, opts)
	if err != nil {
		p.countCall(status.Code(err))
		return err
	}
	outcome := codes.Unknown // if an interceptor panics
	defer func() {
		p.countCall(outcome) // before Close can return
		c.release()
	}()
	if len(p.hooks.used) > 0 {
		defer p.noteUse(p.now())
	}
	err = c.conn.Invoke(ctx, method, args, reply, opts...)
	outcome = status.Code(err)
	c.noteResult(outcome)
	if err == nil {
		return nil
	}
	return c.explain(ctx, err, outcome)
}

// countCall counts an RPC that has ended.
func (p *Pool) countCall(outcome codes.Code) {
	if outcome >= allCodes {
		outcome = codes.Unknown
	}
	p.counts.calls[outcome].Add(1)
}

// leaseForCall takes a lease for an RPC with the given options, and returns those that it is
// to be made with.
func (p *Pool) leaseForCall(ctx context.Context, opts []grpc.CallOption) (*channel, []grpc.CallOption, error) {
	if p.channels == nil {
		c, err := p.leaseConnected(ctx, opts)
		return c, opts, err
	}
	c, _, err := p.leaseUntested(ctx)
	switch {
	case err != nil:
		if errors.Is(err, grpcpool.ErrClosed) {
			c, err = p.leaseClosed() //nolint:contextcheck // its channel serves all callers
		}
	case !p.cfg.waitForReady:
	case len(opts) == 0:
		opts = waiting
	default:
		opts = append(waiting[:1:1], opts...) // the caller's come later, and win
	}
	return c, opts, err
}

// leaseConnected takes a lease for an RPC over a factory that makes connected channels only.
func (p *Pool) leaseConnected(ctx context.Context, opts []grpc.CallOption) (*channel, error) {
	if c, _ := p.tryLease(); c != nil {
		return c, nil
	}
	if c, _ := p.tryProvenLease(); c != nil {
		return c, nil
	}
	wait := p.cfg.waitForReady
	for _, opt := range opts {
		if o, ok := opt.(grpc.FailFastCallOption); ok {
			wait = !o.FailFast
		}
	}
	c, _, err := p.waitForLease(ctx, wait)
	return c, err
}

// leaseUntested takes a lease on the current channel as it is, or on one that is made now. It
// fails if the pool is closed, or if none can be made.
func (p *Pool) leaseUntested(ctx context.Context) (c *channel, tally uint64, err error) {
	for {
		if c = p.current.Load(); c == nil {
			if c, err = p.makeChannel(ctx); err != nil {
				return nil, 0, err
			}
		}
		if tally, ok := c.acquire(); ok {
			if !c.called.Load() {
				c.called.Store(true)
			}
			return c, tally, nil
		}
	}
}

// making is the making of a channel, which is done once however many callers need one.
type making struct {
	done chan struct{} // closed when it is over
	c    *channel      // readable once done is closed, and so is err
	err  error
}

// makeChannel returns the current channel, or makes one, which is not connected.
func (p *Pool) makeChannel(ctx context.Context) (*channel, error) {
	p.mu.Lock()
	c, m := p.current.Load(), p.making
	switch {
	case p.closing:
		p.mu.Unlock()
		return nil, grpcpool.ErrClosed
	case p.mistakes != nil:
		p.mu.Unlock()
		return nil, p.mistakes
	case c != nil:
		p.mu.Unlock()
		return c, nil
	case m != nil:
		p.mu.Unlock()
		select {
		case <-m.done:
			return m.c, m.err
		case <-ctx.Done():
			return nil, newWaitError(ctx, p.cfg.name, p.lastError())
		}
	}
	m = &making{done: make(chan struct{}), err: errMakingPanicked}
	p.making = m
	p.live++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.making = nil
		p.mu.Unlock()
		close(m.done)
		p.finished()
	}()
	m.c, m.err = p.askForChannel() //nolint:contextcheck // the channel outlives the call that it is made for
	if m.err != nil && !errors.Is(m.err, grpcpool.ErrClosed) {
		p.noteAway(nil, m.err, 0)
	}
	return m.c, m.err
}

var errMakingPanicked = asNotOK(errors.New("grpcpool: the factory's NewChannel panicked"))

// askForChannel has the factory make a channel, and installs it.
func (p *Pool) askForChannel() (*channel, error) {
	l := &ledger{pool: p, channel: p.counts.dialled.Add(1)}
	conn, inspector, err := p.channels.NewChannel(grpcpool.ContextWithEvents(p.withLog(context.Background()), l.report))
	switch {
	case err != nil:
		return nil, asNotOK(err)
	case conn == nil:
		return nil, asNotOK(errors.New("grpcpool: the factory's NewChannel returned neither a channel nor an error; it must return one of them"))
	}
	watcher, _ := inspector.(grpcpool.Supervisor)
	c := &channel{pool: p, conn: conn, inspector: inspector, watcher: watcher, ledger: l, id: l.channel, born: p.now()}
	c.health.Store(unconnected)
	c.awaySince.Store(int64(c.born))
	c.idle.since = c.born
	c.askSupervised()
	p.mu.Lock()
	if p.closing {
		p.mu.Unlock()
		_ = conn.Close() // it is not connected, and cannot fail
		return nil, grpcpool.ErrClosed
	}
	p.setCurrentLocked(c)
	p.open[c] = struct{}{}
	p.live++
	p.target = conn.Target()
	p.mu.Unlock()
	p.wakeWatchdog() // the idle time begins
	return c, nil
}

// leaseClosed takes a lease on a channel that is closed, so that an RPC on a closed pool ends
// as on a closed channel, and is seen as such.
func (p *Pool) leaseClosed() (*channel, error) {
	p.closedOnce.Do(func() {
		conn, _, err := p.channels.NewChannel(context.Background())
		if err != nil || conn == nil {
			return
		}
		_ = conn.Close() // it is not connected, and cannot fail
		p.closed = &channel{pool: p, conn: conn}
		p.closed.tally.Store(retired | closing)
	})
	if p.closed == nil {
		return nil, grpcpool.ErrClosed
	}
	p.closed.tally.Add(oneGrant + oneLease)
	return p.closed, nil
}

// seekOther is told that an RPC has failed. If c has failed its test although it has a
// connection, another channel is dialled for the RPCs to come.
func (c *channel) seekOther() {
	if c.health.Load() == failed && c.conn.GetState() == connectivity.Ready {
		c.pool.renewInBackground()
	}
}

// noteAway notes that an RPC has failed, as the channel had no connection when it had seen so
// many, or as there is no channel: then c is nil.
func (p *Pool) noteAway(c *channel, err error, seen uint32) {
	p.mu.Lock()
	if p.closing || p.lastErr != nil || p.attempt != nil || p.current.Load() != c {
		p.mu.Unlock()
		return
	}
	p.setLastErrLocked(asNotOK(err))
	p.mu.Unlock()
	p.reportChanges()
	if c != nil && c.connections.Load() != seen { // it came before noteBack could know of the failure
		p.noteBack(c)
	}
}

// noteWaiting is told why a dial of c has failed. RPCs that wait for a connection fail only
// when their contexts end, if ever, so an outage is noted while they wait.
func (c *channel) noteWaiting(why string) {
	p := c.pool
	seen := c.connections.Load()
	if p.channels != nil && !p.away.Load() && c.leasesOut() > 0 && c.conn.GetState() == connectivity.TransientFailure {
		p.noteAway(c, errors.New(oneLine(why)), seen)
	}
}

// noteBack notes that the channel has a connection again, or that an RPC on it has gone well.
// If the channel has failed a test, the next one decides, and may be at once.
func (p *Pool) noteBack(c *channel) {
	if p.channels == nil {
		return
	}
	p.mu.Lock()
	bad := c.health.Load() == failed
	if p.closing || p.lastErr == nil || p.attempt != nil || p.current.Load() != c {
		p.mu.Unlock()
		return
	}
	if !bad {
		p.setLastErrLocked(nil)
	}
	p.mu.Unlock()
	if bad {
		p.endPause()
		return
	}
	p.reportChanges()
}

// setLastErrLocked notes how the latest attempt has ended, or that an RPC has found no
// connection. reportChanges has to be called next, without the lock.
func (p *Pool) setLastErrLocked(err error) {
	before := p.lastErr
	p.lastErr = err
	p.away.Store(err != nil)
	switch {
	case errors.Is(err, grpcpool.ErrClosed):
	case before == nil && err != nil:
		p.changes = append(p.changes, Event{Kind: EventFailing, Text: err.Error()})
	case before != nil && err == nil:
		p.changes = append(p.changes, Event{Kind: EventRecovered, Text: "last error: " + before.Error()})
	}
}

// reportChanges reports the begins and ends of times without a connection, in their order,
// whichever goroutines have found them.
func (p *Pool) reportChanges() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.changes) > 0 && !p.reporting {
		e := p.changes[0]
		p.changes, p.reporting = p.changes[1:], true
		p.mu.Unlock()
		p.emit(e)
		p.mu.Lock()
		p.reporting = false
	}
}
