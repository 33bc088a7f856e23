package shared

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/scale"
)

// State is what a pool is doing.
type State string

// The states of a pool.
const (
	StateIdle       State = "idle"       // no channel: the next Get dials
	StateConnecting State = "connecting" // no channel may be lent; one is being dialled or tested
	StateReady      State = "ready"      // the channel may be lent, perhaps after a test
	StateFailing    State = "failing"    // the last attempt failed, or New was given mistakes; Get returns LastError
	StateClosed     State = "closed"     // Shutdown or Close has begun
)

// Stats is a snapshot of a pool. Counters start at New and never go back.
type Stats struct {
	Name      string
	Target    string // the address; "" before the first dial if the factory has no method Target() string
	State     State
	Leases    int   // out now, including those of RPCs made on the pool
	Waiting   int   // callers that wait for a connection now
	Channels  int   // open now: the current one, and those that wait for their last lease
	Stuck     int   // calls of the factory that did not return when their contexts ended, and still run
	LastError error // of the last attempt to test or dial, nil if it succeeded; or the mistakes that New was given

	// Current shows the subchannels and connections of the channel that is lent. It is
	// empty if there is no channel, or if the factory is not a
	// grpcpool.InspectableFactory.
	Current scale.Channel

	// Retired shows the channels that wait for their last lease.
	Retired []scale.Channel

	Events   []Event // the latest 64, oldest first
	Settings Settings

	// Identity is the identity that new connections show, and the result of its last
	// renewal. It is zero if the factory is not a grpcpool.IdentityReporter.
	Identity identity.Info

	// Calls are the RPCs made on the pool that have ended, by their status. A stream ends
	// when its lease does. A call that found no lease counts too. Codes without a call are left
	// out.
	Calls map[codes.Code]uint64

	Dials       uint64 // channels that were dialled, by the factory's NewConnection or Connect or for RPCs
	DialsFailed uint64
	Tests       uint64 // calls of the factory's ConnectionOk that have ended
	TestsFailed uint64
	Replaced    uint64 // channels that were retired because another replaced them
	IdleClosed  uint64 // channels that were closed after the idle timeout
	Leaked      uint64 // leases that leak detection has reported
	TimedOut    uint64 // callers whose deadline passed before they had a connection
	Starved     uint64 // calls that ended before they got a stream
}

// Settings are what the arguments of New have set, or the defaults.
type Settings struct {
	IdleTimeout  time.Duration // 0: never
	DialTimeout  time.Duration
	TestTimeout  time.Duration
	TestInterval time.Duration
	DrainTimeout time.Duration
	LeakAfter    time.Duration // 0: leak detection is off
	WaitForReady bool
	Lazy         bool
}

func (cfg *config) settings() Settings {
	return Settings{
		IdleTimeout:  max(cfg.idleTimeout, 0),
		DialTimeout:  cfg.dialTimeout,
		TestTimeout:  cfg.testTimeout,
		TestInterval: cfg.testInterval,
		DrainTimeout: cfg.drainTimeout,
		LeakAfter:    cfg.leakAfter,
		WaitForReady: cfg.waitForReady,
		Lazy:         cfg.lazy,
	}
}

// counts are the counters of Stats, and the number of channels dialled so far.
type counts struct {
	waiting, stuck                                                                          atomic.Int64
	dialled, dials, dialsFailed, tests, testsFailed, replaced, idleClosed, leaked, timedOut atomic.Uint64

	calls [allCodes]atomic.Uint64
}

// ended returns the calls that have ended, by their status.
func (c *counts) ended() map[codes.Code]uint64 {
	calls := make(map[codes.Code]uint64)
	for code := range allCodes {
		if n := c.calls[code].Load(); n > 0 {
			calls[code] = n
		}
	}
	return calls
}

// Stats returns a snapshot. It may be called at any time, also after Close.
func (p *Pool) Stats() Stats {
	s := Stats{
		Name:        p.cfg.name,
		Waiting:     int(p.counts.waiting.Load()),
		Stuck:       int(p.counts.stuck.Load()),
		Dials:       p.counts.dials.Load(),
		DialsFailed: p.counts.dialsFailed.Load(),
		Tests:       p.counts.tests.Load(),
		TestsFailed: p.counts.testsFailed.Load(),
		Replaced:    p.counts.replaced.Load(),
		IdleClosed:  p.counts.idleClosed.Load(),
		Leaked:      p.counts.leaked.Load(),
		TimedOut:    p.counts.timedOut.Load(),
		Calls:       p.counts.ended(),
	}
	s.Events, s.Settings = p.events.Latest(), p.cfg.settings()
	current, others := p.fill(&s)
	if current != nil {
		now, starved := current.snapshot()
		s.Current = now
		s.Starved += starved
	}
	for _, c := range others {
		now, starved := c.snapshot()
		s.Starved += starved
		if len(now.Subchannels) > 0 {
			s.Retired = append(s.Retired, now)
		}
	}
	if r, ok := p.factory.(grpcpool.IdentityReporter); ok {
		s.Identity = r.Identity()
	}
	return s
}

// fill fills in what p.mu guards, and returns the open channels.
func (p *Pool) fill(s *Stats) (current *channel, others []*channel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Starved = p.starved
	s.Target, s.State, s.LastError, s.Channels = p.target, p.stateLocked(), p.lastErr, len(p.open)
	current = p.current.Load()
	for c := range p.open {
		s.Leases += c.leasesOut()
		if c != current {
			others = append(others, c)
		}
	}
	slices.SortFunc(others, func(a, b *channel) int { return cmp.Compare(a.id, b.id) })
	return current, others
}

func (p *Pool) stateLocked() State {
	c := p.current.Load()
	switch {
	case p.closing:
		return StateClosed
	case c == nil || c.health.Load() == failed:
	case p.channels == nil || c.health.Load() == proven || p.lastErr == nil && c.health.Load() != unconnected:
		return StateReady
	case p.attempt == nil:
		if s := stateOf(c.conn.GetState()); s != StateIdle {
			return s
		}
	}
	switch {
	case p.attempt != nil:
		return StateConnecting
	case p.lastErr != nil:
		return StateFailing
	default:
		return StateIdle
	}
}

// stateOf is the state of a pool whose channel decides.
func stateOf(s connectivity.State) State {
	switch s {
	case connectivity.Ready:
		return StateReady
	case connectivity.Connecting:
		return StateConnecting
	case connectivity.TransientFailure:
		return StateFailing
	case connectivity.Idle, connectivity.Shutdown:
	}
	return StateIdle
}
