package scenario

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/bench/peers"
)

func unary() *Scenario {
	return &Scenario{
		Name: "unary", Title: "A unary call without load",
		Text:  "Empty calls by 1, 16 and 128 callers on a server that allows 1,000 streams, so that no peer needs a second connection. Client and server share the two cores and the allocations.",
		Peers: []string{peers.Pool, peers.Scale, peers.Plain, peers.RoundRobin, peers.Least, peers.GCP, peers.API, peers.Exclusive},
		Units: []string{unitNs, unitAllocs},
		run:   runUnary,
	}
}

func runUnary(ctx context.Context, e *Env) error {
	s, err := start(ctx, nil, grpc.MaxConcurrentStreams(1000))
	if err != nil {
		return err
	}
	defer s.stop()
	for _, callers := range []int{1, 16, 128} {
		err := e.eachPeer(s, 10, func(p peers.Peer, c peers.Client) error {
			client := testpb.NewTestServiceClient(c)
			call := func() error {
				_, err := client.EmptyCall(ctx, &testpb.Empty{})
				return err //nolint:wrapcheck // eachPeer does
			}
			// Every connection is up and every goroutine's stack has grown.
			if _, err := timeOp(callers, 1, either(e, 50*time.Millisecond, time.Millisecond), call); err != nil {
				return err
			}
			metrics, err := costs(callers, either(e, 300*time.Millisecond, time.Millisecond), call)
			e.record(fmt.Sprintf("callers=%d", callers), p.Name, metrics...)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// costs is timeOp and the allocations of an op.
func costs(goroutines int, length time.Duration, op func() error) ([]Metric, error) {
	var before, after runtime.MemStats
	var n countedOp
	runtime.ReadMemStats(&before)
	perOp, err := timeOp(goroutines, 1, length, n.count(op))
	runtime.ReadMemStats(&after)
	ops := float64(max(n.Load(), 1))
	return []Metric{
		{perOp, unitNs},
		{float64(after.TotalAlloc-before.TotalAlloc) / ops, "B/op"},
		{float64(after.Mallocs-before.Mallocs) / ops, unitAllocs},
	}, err
}

type countedOp struct{ atomic.Int64 }

func (n *countedOp) count(op func() error) func() error {
	return func() error {
		n.Add(1)
		return op()
	}
}
