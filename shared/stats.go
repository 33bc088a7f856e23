package shared

import (
	"sync/atomic"

	"github.com/davidwartell/go-grpcpool"
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
	State     State
	Leases    int   // out now, those held by RPCs made on the pool included
	Waiting   int   // callers waiting for a connection now
	Channels  int   // open now: the current one and those that wait for their last lease
	LastError error // of the last attempt to test or dial; nil if it went well

	// Current is the inside of the channel that is lent: its subchannels and
	// connections. It is empty without a channel, and for a factory that is no
	// grpcpool.Inspector.
	Current grpcpool.Channel

	// Identity is what new connections prove themselves with, and how a renewal of
	// it went. It is zero for a factory that is no grpcpool.IdentityReporter.
	Identity grpcpool.IdentityInfo

	Dials       uint64 // calls of the factory's NewConnection that have ended
	DialsFailed uint64
	Tests       uint64 // calls of the factory's ConnectionOk that have ended
	TestsFailed uint64
	Replaced    uint64 // channels retired because another took their place
	IdleClosed  uint64 // channels closed for want of leases
	Leaked      uint64 // leases reported by leak detection
}

// counts are the counters of Stats.
type counts struct {
	waiting                                                              atomic.Int64
	dials, dialsFailed, tests, testsFailed, replaced, idleClosed, leaked atomic.Uint64
}

// Stats returns a snapshot. It may be called at any time, after Close too.
func (p *Pool) Stats() Stats {
	s := Stats{
		Name:        p.cfg.name,
		Waiting:     int(p.counts.waiting.Load()),
		Dials:       p.counts.dials.Load(),
		DialsFailed: p.counts.dialsFailed.Load(),
		Tests:       p.counts.tests.Load(),
		TestsFailed: p.counts.testsFailed.Load(),
		Replaced:    p.counts.replaced.Load(),
		IdleClosed:  p.counts.idleClosed.Load(),
		Leaked:      p.counts.leaked.Load(),
	}
	if c := p.current.Load(); c != nil && c.inside != nil {
		s.Current = c.inside.Snapshot()
	}
	if r, ok := p.factory.(grpcpool.IdentityReporter); ok {
		s.Identity = r.Identity()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.State, s.LastError, s.Channels = p.stateLocked(), p.lastErr, len(p.open)
	for c := range p.open {
		s.Leases += c.leasesOut()
	}
	return s
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
