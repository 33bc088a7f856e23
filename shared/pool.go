package shared

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool"
)

// Pool lends one channel to many callers. Its methods may be called
// concurrently. Make one with New.
type Pool struct {
	factory grpcpool.ConnectionFactory
	cfg     config
	epoch   time.Time // what the pool's clock counts from

	current atomic.Pointer[channel] // written under mu
	borrows borrows                 // empty without leak detection
	counts  counts
	hooks   hooks // not written after New
	watched bool  // leases are of the watched kind; not written after New
	events  events
	log     eventLog // of the goroutine that tells events

	lastAnswer atomic.Int64 // nanoseconds that the last good dial or test took

	ctx    context.Context //nolint:containedctx // the pool's life, not a call's: ends when closing begins
	cancel context.CancelFunc
	wake   chan struct{} // tells the watchdog to look now; holds one

	mu       sync.Mutex // guards what follows; never held over I/O, a log line or a callback
	attempt  *attempt   // the test and dial under way, or nil
	lastErr  error      // of the last attempt, nil if it went well
	nextDial time.Time  // no dial before
	open     map[*channel]struct{}
	starved  uint64 // calls on channels that are closed
	target   string // of the latest channel, or of the factory if it says
	closing  bool
	ended    bool          // the last event is told, or about to be
	live     int           // open channels and running goroutines: what Shutdown waits for
	drained  chan struct{} // closed when closing and live is 0

	giveUpOnce sync.Once
	impatient  chan struct{} // closed when the drain timeout of a Close has passed
}

var (
	_ grpcpool.Pool            = (*Pool)(nil)
	_ grpc.ClientConnInterface = (*Pool)(nil)
)

// New makes a pool over the channels of factory. Nothing is dialled before the
// first Get. After idleTimeout without a lease, counted from the last Return (and
// at most a quarter of a second more), the channel is closed; the next Get opens
// it again. An idleTimeout of 0 or less means never. The pool must be closed.
func New(factory grpcpool.ConnectionFactory, idleTimeout time.Duration, opts ...Option) *Pool {
	p := &Pool{
		factory: factory,
		cfg:     newConfig(idleTimeout, opts),
		epoch:   time.Now(),
		wake:    make(chan struct{}, 1),
		open:    make(map[*channel]struct{}),
		drained: make(chan struct{}),

		impatient: make(chan struct{}),
		live:      1, // the watchdog
	}
	if f, ok := factory.(interface{ Target() string }); ok {
		p.target = f.Target()
	}
	p.log.logger, p.log.ctx = p.cfg.logger, context.Background()
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, attach := range p.cfg.attach {
		p.hooks.add(attach(p))
	}
	p.watched = p.cfg.leakAfter > 0 || len(p.hooks.used) > 0
	go p.watch()
	return p
}

// Get borrows the channel. It returns at once while the channel is known to be
// alive, whatever the state of ctx; else it waits, no longer than ctx, for a test
// or a dial that all callers share. A failed dial is an error (see
// WithWaitForReady), and until the next one has succeeded, which is begun by a Get
// about a second later, other Gets fail at once with the same error.
//
// The error answers errors.Is for grpcpool.ErrClosed, for
// grpcpool.ErrConnectionNotOK (which wraps the cause), or for ctx's error.
func (p *Pool) Get(ctx context.Context) (grpcpool.PoolClientConn, error) {
	c, tally := p.tryLease()
	if c == nil {
		var err error
		if c, tally, err = p.waitForLease(ctx, p.cfg.waitForReady); err != nil {
			return nil, err
		}
	}
	if p.watched {
		return p.newWatchedLease(c), nil
	}
	return c.newLease(tally), nil
}

// Invoke makes a unary RPC and holds a lease while it runs. The error of a lease
// that could not be had is Get's and carries a gRPC status.
func (p *Pool) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	c, err := p.leaseFor(ctx, opts)
	if err != nil {
		return err
	}
	defer c.release()
	if len(p.hooks.used) > 0 {
		defer p.used(p.now())
	}
	err = c.conn.Invoke(ctx, method, args, reply, opts...)
	c.noteResult(err)
	return err
}

// leaseFor acquires a lease for an RPC with the given options.
func (p *Pool) leaseFor(ctx context.Context, opts []grpc.CallOption) (*channel, error) {
	if c, _ := p.tryLease(); c != nil {
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

// tryLease acquires a lease if that needs no waiting, else it returns nil. It also
// returns the channel's tally with the lease.
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
		c.release() // the other lease that made it lendable is gone
		return nil, 0
	}
	return c, tally
}

// waitForLease acquires a lease, waiting for attempts as long as ctx allows.
func (p *Pool) waitForLease(ctx context.Context, wait bool) (c *channel, tally uint64, err error) {
	p.counts.waiting.Add(1)
	defer p.counts.waiting.Add(-1)
	ctx, end := p.begin(ctx, OpWait)
	start := p.now()
	defer func() {
		end(err)
		p.waited(start, err)
	}()
	for {
		if c, tally = p.tryLease(); c != nil {
			return c, tally, nil
		}
		a, err := p.join(ctx, wait)
		if err != nil {
			return nil, 0, err
		}
		select {
		case <-a.done:
		case <-ctx.Done():
			return nil, 0, newWaitError(ctx, p.cfg.name, p.lastError())
		}
		if a.err != nil && !wait {
			return nil, 0, a.err
		}
	}
}

// Shutdown hands out no more leases, waits for those that are out, and closes the
// channel. Callers waiting in Get are told grpcpool.ErrClosed. If ctx ends first
// the leases go on, and the error says how many and wraps ctx's.
func (p *Pool) Shutdown(ctx context.Context) error {
	p.stopLending()
	select {
	case <-p.drained: // also when ctx has ended too
		return p.leftOver()
	default:
	}
	select {
	case <-p.drained:
		return p.leftOver()
	case <-ctx.Done():
		return fmt.Errorf("grpcpool: shutting down with %d leases out: %w", p.Stats().Leases, context.Cause(ctx))
	}
}

// Close is Shutdown within the drain timeout (see WithDrainTimeout), after which
// it closes the channel under the leases that are still out and returns an error
// that says how many. Closing a closed pool does nothing.
//
// Code of the program's that does not return (a PingFunc or a factory that ignores
// its context, a hook, a log handler) does not keep Close from returning, within
// the drain timeout and at most two seconds more. The error, and the last event,
// then say what still runs.
func (p *Pool) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.drainTimeout)
	defer cancel()
	err := p.Shutdown(ctx)
	if err == nil || ctx.Err() == nil {
		return err
	}
	p.giveUpOnce.Do(func() { close(p.impatient) })
	for _, c := range p.openChannels() {
		c.closeOnce()
	}
	timer := time.NewTimer(closeGrace)
	defer timer.Stop()
	select {
	case <-p.drained:
		if text := p.stuckText(); text != "" {
			return fmt.Errorf("%w; still running: %s", err, text)
		}
		return err
	case <-timer.C:
		return p.giveUp(err)
	}
}

func (p *Pool) stopLending() {
	p.mu.Lock()
	c := p.current.Swap(nil)
	p.closing = true
	p.mu.Unlock()
	p.cancel()
	if c != nil {
		c.retire()
	}
}

// closeChannel closes c's connection away from the caller, which may be a Return.
// how is the event that tells of it.
func (p *Pool) closeChannel(c *channel, how EventKind) {
	go func() {
		c.look()           // while there is something to be seen
		_ = c.conn.Close() // fails only if somebody closed it, which is what is wanted
		p.emit(Event{Kind: how, Channel: c.id, Took: p.now() - c.born, Connections: c.told.left()})
		_, starved := c.look()
		p.mu.Lock()
		p.starved += starved
		delete(p.open, c)
		p.mu.Unlock()
		p.finished()
	}()
}

// finished takes an open channel or a running goroutine off the count of what
// Shutdown waits for.
func (p *Pool) finished() {
	p.mu.Lock()
	p.live--
	over := p.closing && p.live == 0
	last := over && !p.ended
	switch {
	case last:
		p.ended = true
		p.live++ // for the telling of the last event
	case over:
		close(p.drained)
	}
	p.mu.Unlock()
	if last {
		p.emit(Event{Kind: EventShutdown, Text: p.stuckText()})
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
