package shared

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/identity"
)

// State is what a pool is doing.
type State string

// The states of a pool.
const (
	StateIdle       State = "idle"       // no channel: the next Get dials
	StateConnecting State = "connecting" // no channel that may be lent; one is being dialled or tested
	StateReady      State = "ready"      // the channel may be lent, perhaps after a test
	StateFailing    State = "failing"    // the last attempt failed; Get fails until the next succeeds
	StateClosed     State = "closed"     // Shutdown or Close has begun
)

// Stats is a snapshot of a pool. Counters count from New and never go back.
type Stats struct {
	Name      string
	Target    string // what is dialled; "" for a factory that does not say, before the first dial
	State     State
	Leases    int   // out now, those held by RPCs made on the pool included
	Waiting   int   // callers waiting for a connection now
	Channels  int   // open now: the current one and those that wait for their last lease
	Stuck     int   // calls of the factory that go on though their contexts have ended, and that the pool has left alone
	LastError error // of the last attempt to test or dial; nil if it went well

	// Current is the inside of the channel that is lent: its subchannels and
	// connections. It is empty without a channel, and for a factory that is no
	// grpcpool.Inspector.
	Current grpcpool.Channel

	// Retired are the insides of the channels that wait for their last lease.
	Retired []grpcpool.Channel

	Events   []Event // the latest 64, oldest first
	Settings Settings

	// Identity is what new connections prove themselves with, and how a renewal of
	// it went. It is zero for a factory that is no grpcpool.IdentityReporter.
	Identity identity.Info

	Dials       uint64 // calls of the factory's NewConnection that have ended
	DialsFailed uint64
	Tests       uint64 // calls of the factory's ConnectionOk that have ended
	TestsFailed uint64
	Replaced    uint64 // channels retired because another took their place
	IdleClosed  uint64 // channels closed for want of leases
	Leaked      uint64 // leases reported by leak detection
	TimedOut    uint64 // callers whose deadline passed before they had a connection
	Starved     uint64 // calls that ended before they had a stream of a connection
}

// Settings are a pool's, as its options have settled them.
type Settings struct {
	IdleTimeout  time.Duration // 0: never
	DialTimeout  time.Duration
	TestTimeout  time.Duration
	TestInterval time.Duration
	DrainTimeout time.Duration
	LeakAfter    time.Duration // 0: leak detection is off
	WaitForReady bool
}

func (cfg *config) settings() Settings {
	return Settings{
		IdleTimeout:  max(cfg.idleTimeout, 0),
		DialTimeout:  cfg.dialTimeout,
		TestTimeout:  cfg.testTimeout,
		TestInterval: cfg.testInterval,
		DrainTimeout: cfg.drainTimeout,
		LeakAfter:    max(cfg.leakAfter, 0),
		WaitForReady: cfg.waitForReady,
	}
}

// counts are the counters of Stats, and of the channels that were dialled.
type counts struct {
	waiting, stuck                                                                          atomic.Int64
	dialled, dials, dialsFailed, tests, testsFailed, replaced, idleClosed, leaked, timedOut atomic.Uint64
}

// Stats returns a snapshot. It may be called at any time, after Close too.
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
	}
	s.Events, s.Settings = p.events.kept(), p.cfg.settings()
	current, others := p.fill(&s)
	if current != nil {
		now, starved := current.look()
		s.Current = now
		s.Starved += starved
	}
	for _, c := range others {
		now, starved := c.look()
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
	case c != nil && c.health.Load() != failed:
		return StateReady
	case p.attempt != nil:
		return StateConnecting
	case p.lastErr != nil:
		return StateFailing
	default:
		return StateIdle
	}
}
