package scenario

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/bench/peers"
)

// load is callers that call without a pause, for a warm-up and then for the time
// that is measured.
type load struct {
	callers          int
	warmUp, measured time.Duration
}

// run returns the calls a second and the latencies. A call that fails is an error.
func (l load) run(ctx context.Context, c peers.Client) ([]Metric, error) {
	client := testpb.NewTestServiceClient(c)
	took := make([][]time.Duration, l.callers)
	begin := time.Now().Add(l.warmUp)
	end := begin.Add(l.measured)
	err := inParallel(l.callers, func(i int) error {
		for now := time.Now(); now.Before(end); {
			if _, err := client.EmptyCall(ctx, &testpb.Empty{}); err != nil {
				return err //nolint:wrapcheck // wrapped below
			}
			done := time.Now()
			if done.After(begin) && done.Before(end) {
				took[i] = append(took[i], done.Sub(now))
			}
			now = done
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("a call under load: %w", err)
	}
	all := slices.Concat(took...)
	return append([]Metric{{float64(len(all)) / l.measured.Seconds(), unitRate}}, latencies(all)...), nil
}

// latencies are the usual percentiles; none of no calls.
func latencies(all []time.Duration) []Metric {
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	at := func(q float64) float64 { return ms(all[min(int(q*float64(len(all))), len(all)-1)]) }
	return []Metric{{at(0.5), unitP50}, {at(0.99), unitP99}, {at(0.999), unitP999}}
}

// inParallel runs n of f and returns one of their errors.
func inParallel(n int, f func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// eachPeer has f measure every peer on s in turn.
func (e *Env) eachPeer(s *server, size int, f func(p peers.Peer, c peers.Client) error, opts ...grpc.DialOption) error {
	for _, p := range e.peers {
		s.accepted.Store(0)
		c, err := p.New(peers.Config{Target: s.target(), Size: size, Options: opts})
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		err = f(p, c)
		c.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return nil
}
