package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/davidwartell/go-grpcpool/bench/scenario"
)

// measure runs the scenarios and writes raw results and pictures of traces, after
// each round, so that what was measured is not lost when a run is ended.
func measure(ctx context.Context, o options) error {
	r := &results{raw: map[string]*strings.Builder{}, out: o.out}
	begin := time.Now()
	together, inTurn := chosen(o)
	env := func(round int) scenario.Env {
		return scenario.Env{Quick: o.quick, Round: round, Rounds: o.rounds, Clients: o.clients, Spread: o.spread, Settle: o.settle, Window: o.window, Record: r.record, Trace: r.trace}
	}
	var wg sync.WaitGroup
	errs := make([]error, len(together))
	for i, s := range together {
		all := env(0)
		if s.Rounds > 0 {
			all.Rounds = min(all.Rounds, s.Rounds)
		}
		wg.Go(func() { errs[i] = s.Run(ctx, all, o.peers...) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	fmt.Fprintf(os.Stderr, "%4.0f s: what waits has run\n", time.Since(begin).Seconds())
	if err := r.write(); err != nil || len(inTurn) == 0 {
		return err
	}
	for round := range o.rounds {
		for _, s := range inTurn {
			if s.Rounds > 0 && round >= s.Rounds {
				continue
			}
			if err := s.Run(ctx, env(round), o.peers...); err != nil {
				return err
			}
		}
		fmt.Fprintf(os.Stderr, "%4.0f s: round %d of %d has run\n", time.Since(begin).Seconds(), round+1, o.rounds)
		if err := r.write(); err != nil {
			return err
		}
	}
	return nil
}

// chosen are the scenarios that were asked for, or all that need not be asked for: those
// that run at the same time, and those that take turns.
func chosen(o options) (together, inTurn []*scenario.Scenario) {
	for _, s := range scenario.All() {
		switch {
		case len(o.only) > 0 && !slices.Contains(o.only, s.Name):
		case len(o.only) == 0 && s.Asked && !o.quick:
		case s.Together:
			together = append(together, s)
		default:
			inTurn = append(inTurn, s)
		}
	}
	return together, inTurn
}

// results are what a run has come to so far.
type results struct {
	out string

	mu     sync.Mutex                  // guards what follows
	raw    map[string]*strings.Builder // by scenario
	traces []scenario.Trace
}

// record adds a line as package testing would write it.
func (r *results) record(result scenario.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.raw[result.Scenario]
	if b == nil {
		b = new(strings.Builder)
		b.WriteString(environment())
		r.raw[result.Scenario] = b
	}
	name := strings.ToUpper(result.Scenario[:1]) + result.Scenario[1:]
	fmt.Fprintf(b, "Benchmark%s/%s/peer=%s-%d\t1", name, result.Case, result.Peer, runtime.GOMAXPROCS(0))
	for _, m := range result.Metrics {
		fmt.Fprintf(b, "\t%s %s", figure(m.Value), m.Unit)
	}
	b.WriteByte('\n')
}

// figure has four digits, or all before the point: lengths in bytes are exact.
func figure(v float64) string {
	if v >= 1000 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

func (r *results) trace(t scenario.Trace) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.traces = append(r.traces, t)
}

func (r *results) write() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := os.MkdirAll(r.out, 0o755); err != nil { //nolint:gosec // results are for everybody
		return err
	}
	for name, b := range r.raw {
		if err := os.WriteFile(rawFile(r.out, name), []byte(b.String()), 0o644); err != nil { //nolint:gosec // results are for everybody
			return err
		}
	}
	for _, p := range tracePictures(r.traces) {
		if err := draw(filepath.Join(r.out, p.name), p.picture); err != nil {
			return err
		}
	}
	return nil
}

func draw(path string, picture io.WriterTo) error {
	f, err := os.Create(path) //nolint:gosec // the caller's own directory
	if err != nil {
		return err
	}
	if _, err := picture.WriteTo(f); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
