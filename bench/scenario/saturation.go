package scenario

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/bench/peers"
)

// loaded are the peers that are measured under load.
func loaded() []string {
	return []string{peers.Pool, peers.Plain, peers.RoundRobin, peers.Least, peers.GCP, peers.API, peers.Exclusive}
}

func saturation() *Scenario {
	return &Scenario{
		Name: "saturation", Title: "More callers than one connection has streams",
		Text:  "Callers call without a pause on a server that allows 100 streams on a connection and takes 20 ms or 100 ms for a call; N is 10.",
		Peers: loaded(), Units: []string{unitRate, unitP50, unitP99, unitP999, unitConnections},
		run: runSaturation,
	}
}

func runSaturation(ctx context.Context, e *Env) error {
	type step struct {
		handler time.Duration
		load    load
	}
	// Long enough for what the slowest have queued: with one connection a call of
	// 1,000 callers takes 200 ms or 1 s.
	short := load{warmUp: 200 * time.Millisecond, measured: 350 * time.Millisecond}
	long := load{1000, 900 * time.Millisecond, 1100 * time.Millisecond}
	steps := make([]step, 0, 6)
	steps = append(steps, step{100 * time.Millisecond, long})
	for _, callers := range []int{50, 100, 200, 500, 1000} {
		short.callers = callers
		steps = append(steps, step{20 * time.Millisecond, short})
	}
	for _, step := range steps {
		s, err := start(ctx, always(step.handler))
		if err != nil {
			return err
		}
		if e.Quick {
			step.load = load{150, 20 * time.Millisecond, 150 * time.Millisecond}
		}
		err = e.underLoad(ctx, s, 10, fmt.Sprintf("handler=%s/callers=%d", step.handler, step.load.callers), step.load)
		s.stop()
		if err != nil || e.Quick {
			return err
		}
	}
	return nil
}

// underLoad measures every peer on s.
func (e *Env) underLoad(ctx context.Context, s *server, size int, name string, l load) error {
	return e.eachPeer(s, size, func(p peers.Peer, c peers.Client) error {
		metrics, err := l.run(ctx, c)
		e.record(name, p.Name, append(metrics, Metric{float64(s.accepted.Load()), unitConnections})...)
		return err
	})
}

func overload() *Scenario {
	return &Scenario{
		Name: "overload", Title: "More callers than there are streams, some calls slow",
		Text:  "1,000 callers without a pause on at most 4 connections of 100 streams (exclusive: 100 of one); a call takes 20 ms, and one in ten 200 ms.",
		Peers: loaded(), Units: []string{unitRate, unitP50, unitP99, unitP999, unitConnections},
		run: runOverload,
	}
}

func runOverload(ctx context.Context, e *Env) error {
	s, err := start(ctx, mixed(uint64(e.Round))) //nolint:gosec // counts from 0
	if err != nil {
		return err
	}
	defer s.stop()
	l := either(e, load{1000, 700 * time.Millisecond, 1100 * time.Millisecond}, load{150, 20 * time.Millisecond, 100 * time.Millisecond})
	return e.underLoad(ctx, s, 4, fmt.Sprintf("callers=%d", l.callers), l)
}

// mixed is 20 ms, and for one call in ten 200 ms; the same ones with the same seed.
func mixed(seed uint64) func() time.Duration {
	var mu sync.Mutex                      // guards dice
	dice := rand.New(rand.NewPCG(8, seed)) //nolint:gosec // no secret
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		if dice.IntN(10) == 0 {
			return 200 * time.Millisecond
		}
		return 20 * time.Millisecond
	}
}

func burst() *Scenario {
	return &Scenario{
		Name: "burst", Title: "A burst on a cold channel",
		Text:  "1,000 calls at once, of 200 ms each, on a client that has no connection; a dial takes 50 ms, the limit is 100 streams, N is 10. The time until the last is answered.",
		Peers: loaded(), Units: []string{"burst-ms", unitConnections},
		run: runBurst,
	}
}

func runBurst(ctx context.Context, e *Env) error {
	s, err := start(ctx, always(either(e, 200*time.Millisecond, time.Millisecond)))
	if err != nil {
		return err
	}
	defer s.stop()
	calls := either(e, 1000, 150)
	return e.eachPeer(s, 10, func(p peers.Peer, c peers.Client) error {
		client := testpb.NewTestServiceClient(c)
		begin := time.Now()
		err := inParallel(calls, func(int) error {
			_, err := client.EmptyCall(ctx, &testpb.Empty{})
			return err //nolint:wrapcheck // eachPeer does
		})
		e.record(fmt.Sprintf("calls=%d", calls), p.Name, Metric{ms(time.Since(begin)), "burst-ms"}, Metric{float64(s.accepted.Load()), unitConnections})
		return err
	}, slowDial())
}
