package shared

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/internal/event"
	"github.com/davidwartell/go-grpcpool/internal/logline"
)

// Pool lends one channel to many callers. Its methods may be called concurrently.
// Make one with New.
//
// It is a grpc.ClientConnInterface: a generated client works on it, and each of its
// calls holds a lease while it runs. It also has the methods of a *grpc.ClientConn that tell
// its state, so that it can take the place of one.
type Pool struct {
	factory  grpcpool.ConnectionFactory // nil if New was given none
	channels grpcpool.ChannelFactory    // factory, if it can make channels that are not connected
	cfg      config
	mistakes error     // in the arguments of New, nil if there are none
	epoch    time.Time // the pool's clock counts from here

	current atomic.Pointer[channel] // written by setCurrentLocked
	away    atomic.Bool             // lastErr is set; written under mu
	borrows borrows                 // empty without leak detection
	counts  counts
	hooks   hooks // not written after New
	tracked bool  // Get lends leases of the tracked kind; not written after New
	events  event.Queue
	log     *logline.Log

	lastAnswer atomic.Int64 // nanoseconds that the last successful dial or test took
	demandedAt atomic.Int64 // on the pool's clock, when demand last made the channel dial
	askedAt    atomic.Int64 // on the pool's clock, when a Get last found no channel that may be lent; 0: never

	ctx    context.Context //nolint:containedctx // the pool's life, not a call's: ends when closing begins
	cancel context.CancelFunc
	watch  watchdog

	// mu guards what follows. It is never held over I/O, a log line or a callback. No
	// two of Pool.mu, borrows.mu, event.Queue.mu and ledger.mu are held together.
	mu        sync.Mutex
	attempt   *attempt      // the test and dial under way, or nil
	making    *making       // of a channel, or nil
	lastErr   error         // of the last attempt, or of the RPC that first found no connection; nil if there is one
	changes   []Event       // of lastErr from or to nil, not reported yet
	reporting bool          // a goroutine reports one of them
	switched  *switching    // ends when current changes; nil while nobody waits
	nextTry   time.Time     // no attempt before, while no channel may be lent
	nextDial  time.Time     // no dial before
	sooner    chan struct{} // closed when nextTry is brought forward; nil while nobody waits
	downSince time.Time     // when the first of the dials failed that have failed in a row
	costly    int           // dials in a row that reached the server and were of no use
	open      map[*channel]struct{}
	starved   uint64 // calls on channels that are closed
	target    string // of the latest channel, or of the factory if it has one
	canonical string // target, as the latest channel has parsed it; "" before there is one
	closing   bool
	ended     bool          // the last event is reported, or about to be
	live      int           // open channels and running goroutines: what Shutdown waits for
	drained   chan struct{} // closed when closing is set and live is 0

	closedOnce sync.Once
	closed     *channel // for RPCs on the closed pool; not written after closedOnce

	drainTimedOutOnce sync.Once
	drainTimedOut     chan struct{} // closed when Close has waited for the drain timeout
}

var (
	_ grpcpool.Pool            = (*Pool)(nil)
	_ grpc.ClientConnInterface = (*Pool)(nil)
)

// New makes a pool over the channels of factory. It dials nothing: the first Get does.
//
// When no lease has been out for idleTimeout, the pool closes the channel, at most a
// quarter of a second later; the next Get opens another. An idleTimeout of 0 or less
// means never.
//
// A nil factory, a nil option or an option with an argument out of its range is a
// mistake. New does not panic: it logs the mistakes, and every Get, Invoke and
// NewStream returns an error that names each of them. The error's gRPC status code is
// FailedPrecondition. Stats shows it as LastError.
//
// Call Close when the pool is no longer needed, also after a mistake.
func New(factory grpcpool.ConnectionFactory, idleTimeout time.Duration, opts ...Option) *Pool {
	p := &Pool{
		cfg:     newConfig(factory, idleTimeout, opts),
		epoch:   time.Now(),
		open:    make(map[*channel]struct{}),
		drained: make(chan struct{}),
		live:    1, // the watchdog

		drainTimedOut: make(chan struct{}),
	}
	p.mistakes = p.cfg.err()
	p.lastErr = p.mistakes
	if !isNil(factory) {
		p.factory = factory
		p.channels, _ = factory.(grpcpool.ChannelFactory)
	}
	if f, ok := p.factory.(interface{ Target() string }); ok {
		p.target = f.Target()
	}
	p.events.Deliver, p.events.JoinFloods = p.deliver, true
	p.log = p.newLog()
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, attach := range p.cfg.attach {
		p.hooks.add(attach(p))
	}
	p.tracked = p.cfg.leakAfter > 0 || len(p.hooks.used) > 0
	p.logMistakes()
	return p
}

// Get borrows the channel. It returns at once, even if ctx has ended, while the channel
// is known to be alive. Otherwise it waits, as long as ctx allows, for a test or a dial
// that all callers share. If it fails, Get returns its error, unless WithWaitForReady is
// set. The next one begins with a Get after a pause: 25 ms to 0.9 s, and up to ten
// seconds where dials reach the server and fail. Until one succeeds, other calls of Get
// return the same error at once. A dial whose handshake the server does not finish in about
// 2.5 s goes on, within its timeout; for callers who do not wait it counts as failed.
//
// The error matches one of these with errors.Is: grpcpool.ErrClosed;
// grpcpool.ErrConnectionNotOK, and then it wraps the cause; or ctx's error. It carries
// a gRPC status.
//
// With WithLazy, Get tests nothing and waits for nothing.
func (p *Pool) Get(ctx context.Context) (grpcpool.PoolClientConn, error) {
	c, tally := p.tryLease()
	if c == nil && p.cfg.lazy {
		var err error
		if c, tally, err = p.leaseUntested(ctx); err != nil {
			return nil, err
		}
	}
	if c == nil {
		c, tally = p.tryProvenLease()
	}
	if c == nil {
		var err error
		if c, tally, err = p.waitForLease(ctx, p.cfg.waitForReady); err != nil {
			return nil, err
		}
	}
	if p.tracked {
		return p.newTrackedLease(c), nil
	}
	return c.newLease(tally), nil
}

// tryProvenLease takes a lease if the channel itself can prove that it lives.
func (p *Pool) tryProvenLease() (c *channel, tally uint64) {
	if c = p.current.Load(); c == nil || !c.proveByItself() {
		return nil, 0
	}
	return p.tryLease()
}

// tryLease takes a lease if it need not wait for one, and otherwise returns nil. tally
// is the channel's after that.
func (p *Pool) tryLease() (c *channel, tally uint64) {
	c = p.current.Load()
	if c == nil || !c.lendable() {
		return nil, 0
	}
	tally, ok := c.acquire()
	if !ok {
		return nil, 0
	}
	if tally&leases == 1 && c.health.Load() != proven {
		c.release() // the other lease, which made it lendable, is gone
		return nil, 0
	}
	return c, tally
}

// waitForLease takes a lease, and waits for attempts as long as ctx allows.
func (p *Pool) waitForLease(ctx context.Context, wait bool) (c *channel, tally uint64, err error) {
	p.counts.waiting.Add(1)
	defer p.counts.waiting.Add(-1)
	ctx, end := p.trace(ctx, OpWait)
	start := p.now()
	defer func() {
		end(err)
		p.noteWait(start, err)
	}()
	for {
		if c, tally = p.tryLease(); c != nil {
			return c, tally, nil
		}
		if c = p.current.Load(); c != nil && c.proveByItself() {
			continue
		}
		a, err := p.join(ctx, wait)
		if err != nil {
			return nil, 0, err
		}
		var late <-chan struct{}
		if !wait {
			late = a.late
		}
		select {
		case <-a.done:
		case <-late:
			return nil, 0, a.lateErr
		case <-ctx.Done():
			return nil, 0, newWaitError(ctx, p.cfg.name, p.lastError())
		}
		if a.err != nil && !wait {
			return nil, 0, a.err
		}
	}
}

// Shutdown stops lending, waits for the leases that are out, and closes the channel.
// Callers that wait in Get get grpcpool.ErrClosed. If ctx ends first, leases may still
// be out; the error says how many, and wraps the cause of ctx's end. Call Shutdown
// again to wait longer, or Close to end the leases.
func (p *Pool) Shutdown(ctx context.Context) error {
	p.stopLending()
	select {
	case <-p.drained: // also when ctx has ended too
		return p.errStillRunning()
	default:
	}
	select {
	case <-p.drained:
		return p.errStillRunning()
	case <-ctx.Done():
		return shuttingDownError(ctx, p.Stats().Leases)
	}
}

func shuttingDownError(ctx context.Context, leases int) error {
	return fmt.Errorf("grpcpool: shutting down with %s out: %w", plural(leases, "lease"), context.Cause(ctx))
}

// Close is Shutdown with the drain timeout; see WithDrainTimeout. An RPC on the pool that waits
// for a connection holds a lease, too. After that it closes
// the channel under the leases that are still out, and returns an error that says how
// many. It returns nil if none was. Closing a closed pool does nothing.
//
// Code of the program that does not return does not stop Close: a PingFunc or a factory
// that ignores its context, a hook, a log handler. Close returns within the drain
// timeout and two seconds more. Its error, and the last event, then say what still runs.
func (p *Pool) Close() error {
	p.stopLending()
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.drainTimeout)
	defer cancel()
	select {
	case <-p.drained:
		return p.errStillRunning()
	case <-ctx.Done():
	}
	p.drainTimedOutOnce.Do(func() { close(p.drainTimedOut) })
	leases := p.endLeases()
	timer := time.NewTimer(closeGrace)
	defer timer.Stop()
	select {
	case <-p.drained:
	case <-timer.C:
		return p.abandon(shuttingDownError(ctx, leases))
	}
	if leases == 0 {
		return p.errStillRunning()
	}
	err := shuttingDownError(ctx, leases)
	if text := p.describeStuck(); text != "" {
		return fmt.Errorf("%w; still running: %s", err, text)
	}
	return err
}

// endLeases closes every channel, and returns how many leases were out.
func (p *Pool) endLeases() (leases int) {
	for _, c := range p.openChannels() {
		leases += c.leasesOut()
		c.closeOnce()
	}
	return leases
}

func (p *Pool) stopLending() {
	p.mu.Lock()
	c := p.current.Load()
	p.closing = true
	p.setCurrentLocked(nil)
	p.mu.Unlock()
	p.cancel()
	p.endWatchdog()
	if c != nil {
		c.retire()
	}
}

// closeChannel closes c's connection on a goroutine of its own, as the caller may be a
// Return. kind is the event that reports it.
func (p *Pool) closeChannel(c *channel, kind EventKind) {
	go func() {
		c.snapshot()       // counts starved calls while the channel still knows them
		_ = c.conn.Close() // fails only if somebody has closed it already
		p.emit(Event{Kind: kind, Channel: c.id, Took: p.now() - c.born, Connections: c.ledger.openConnections()})
		_, starved := c.snapshot()
		p.mu.Lock()
		p.starved += starved
		delete(p.open, c)
		p.mu.Unlock()
		p.finished()
	}()
}

// finished takes an open channel or a running goroutine off the count of what Shutdown
// waits for. The last one reports the end of the pool first.
func (p *Pool) finished() {
	p.mu.Lock()
	p.live--
	over := p.closing && p.live == 0
	last := over && !p.ended
	switch {
	case last:
		p.ended = true
		p.live++ // for the last event
	case over:
		close(p.drained)
	}
	p.mu.Unlock()
	if last {
		p.emit(Event{Kind: EventShutdown, Text: p.describeStuck()})
		p.finished()
	}
}

func (p *Pool) openChannels() []*channel {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*channel, 0, len(p.open))
	for c := range p.open {
		all = append(all, c)
	}
	return all
}

func (p *Pool) lastError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastErr
}

// now is the pool's clock: the time since New.
func (p *Pool) now() time.Duration { return time.Since(p.epoch) }
