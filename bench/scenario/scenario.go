// Package scenario has what peers are measured at. A scenario runs in rounds; in
// each, the peers take turns in another order. Scenarios that mostly wait (for a
// server to come back, for a keepalive) run all their peers at the same time, so
// that noise of the machine falls on all alike.
package scenario

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/davidwartell/go-grpcpool/bench/compressors"
	"github.com/davidwartell/go-grpcpool/bench/peers"
)

// Metric is a figure and its unit, as Go's benchmarks print it.
type Metric struct {
	Value float64
	Unit  string
}

// Units of more than one scenario.
const (
	unitRate        = "calls/s"
	unitP50         = "p50-ms"
	unitP99         = "p99-ms"
	unitP999        = "p99.9-ms"
	unitNs          = "ns/op"
	unitConnections = "connections"
	unitFailed      = "failed"
	unitAllocs      = "allocs/op"
	unitCPU         = "cpu-us/op"
)

// Result is one peer's figures in one case of one round.
type Result struct {
	Scenario, Case, Peer string
	Metrics              []Metric
}

// Scenario is one thing to measure.
type Scenario struct {
	Name  string // by which it is asked for; in its raw results
	Title string
	Text  string   // what happens, for the report
	Peers []string // names of package peers, or of compressors, in the order of the tables
	Units []string // what the tables show

	// Rounds is the most rounds that make sense; 0 means as many as asked for.
	Rounds int

	// Asked says that the scenario takes long and runs only when it is asked for by name,
	// or quickly.
	Asked bool

	// Together says that the scenario mostly waits: all rounds run at once, beside
	// other scenarios of the kind.
	Together bool

	run func(ctx context.Context, e *Env) error
}

// Env is one run of a scenario.
type Env struct {
	// Quick is for a run that only shows that everything works.
	Quick bool

	// Round counts from 0. Rounds is how many there are, for scenarios that run
	// them all at once.
	Round, Rounds int

	// These are other than the scenario's own if they are not 0: how many clients there
	// are at once, over how long they are opened, for how long they are left alone before
	// anything is measured, and for how long it is.
	Clients                int
	Spread, Settle, Window time.Duration

	// Record is told each result; Trace the calls of one, for a picture. Both may
	// be called concurrently.
	Record func(Result)
	Trace  func(Trace)

	scenario *Scenario

	// In this round's order; a scenario has one or the other.
	peers       []peers.Peer
	compressors []compressors.Compressor
}

// Run runs one round of the scenario, or all of them if they run together. With
// names, only the peers of these names run.
func (s *Scenario) Run(ctx context.Context, e Env, names ...string) error {
	wanted := s.Peers
	if len(names) > 0 {
		wanted = slices.DeleteFunc(slices.Clone(s.Peers), func(n string) bool { return !slices.Contains(names, n) })
	}
	if len(wanted) == 0 {
		return nil
	}
	k := e.Round % len(wanted)
	wanted = slices.Concat(wanted[k:], wanted[:k])
	e.scenario = s
	for _, name := range wanted {
		e.peers = append(e.peers, peers.Named(name)...)
		e.compressors = append(e.compressors, compressors.Named(name)...)
	}
	if err := s.run(ctx, &e); err != nil {
		return fmt.Errorf("scenario %s: %w", s.Name, err)
	}
	return nil
}

// record records a result of this scenario.
func (e *Env) record(name, peer string, metrics ...Metric) {
	e.Record(Result{e.scenario.Name, name, peer, metrics})
}

// either is long, or brief in a quick run.
func either[T any](e *Env, long, brief T) T {
	if e.Quick {
		return brief
	}
	return long
}

// clients, spread, settle and window are what the run was asked for, and long or brief if it was
// not.
func (e *Env) clients(long, brief int) int { return cmp.Or(e.Clients, either(e, long, brief)) }

func (e *Env) spread(long, brief time.Duration) time.Duration {
	return cmp.Or(e.Spread, either(e, long, brief))
}

func (e *Env) settle(long, brief time.Duration) time.Duration {
	return cmp.Or(e.Settle, either(e, long, brief))
}

func (e *Env) window(long, brief time.Duration) time.Duration {
	return cmp.Or(e.Window, either(e, long, brief))
}

// All are the scenarios in the order of the report.
func All() []*Scenario {
	return []*Scenario{
		borrow(), unary(), saturation(), overload(), burst(), stream(),
		rotation(), recovery(), stuck(), many(),
		idle(), open(), restart(), stall(), snappy(),
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func us(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
