package scale_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// Everything at once, at random: calls that end and calls that are cancelled,
// limits that change, GOAWAYs of both kinds, connections that are cut, other
// settings and other child policies, addresses that come and go. Whatever
// happened, in the end every stream was given back, nobody waits, no stream was
// ever beyond a limit, and the channel works.
func TestNothingIsLostWhateverHappens(t *testing.T) {
	const servers, workers = 2, 40
	length := 3 * time.Second
	if testing.Short() {
		length = 500 * time.Millisecond
	}
	var strict [servers]*h2test.Server
	addrs := make([]resolver.Address, 0, servers)
	for i := range strict {
		strict[i] = startStrict(t, h2test.WithLimit(5), h2test.WithDelay(2*time.Millisecond), h2test.WithGrace(5*time.Millisecond))
		addrs = append(addrs, resolver.Address{Addr: strict[i].Addr().String()})
	}
	r := manual.NewBuilderWithScheme("stress")
	r.InitialState(resolver.State{Addresses: addrs})
	w := new(wires)
	c := newChannel(t, "stress:///x", w.option(), grpc.WithResolvers(r), scale.WithMaxConnections(4),
		scale.WithShrinkAfter(50*time.Millisecond), grpc.WithConnectParams(quickly))

	mustHammer(t, c.stub, 1, 1) // the resolver is built

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	ctx, stop := context.WithTimeout(context.Background(), length)
	defer stop()
	var wg sync.WaitGroup
	var calls, answered, cancelled, unavailable atomic.Int64
	for i := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			for ctx.Err() == nil {
				patience := time.Duration(1+rng.IntN(60)) * time.Millisecond
				callCtx, cancel := context.WithTimeout(context.Background(), patience)
				_, err := c.stub.EmptyCall(callCtx, &testpb.Empty{}, grpc.WaitForReady(rng.IntN(2) == 0))
				cancel()
				calls.Add(1)
				switch status.Code(err) {
				case codes.OK:
					answered.Add(1)
				case codes.DeadlineExceeded:
					cancelled.Add(1)
				case codes.Unavailable:
					unavailable.Add(1)
				default:
					t.Errorf("a call ended with %v", err)
				}
			}
		})
	}
	wg.Go(func() { disturb(ctx, rand.New(rand.NewPCG(seed, workers)), strict[:], r, addrs, w) })
	wg.Wait()

	t.Logf("%d calls: %d answered, %d past their deadline, %d unavailable", calls.Load(), answered.Load(), cancelled.Load(), unavailable.Load())
	if calls.Load() != answered.Load()+cancelled.Load()+unavailable.Load() || answered.Load() == 0 {
		t.Error("the calls do not add up")
	}
	c.settled(t)
	for i, s := range strict {
		s.SetLimit(5)
		if got := s.Counts(); got.Violations > 0 {
			t.Errorf("server %d saw %+v", i, got)
		}
	}
	r.UpdateState(resolver.State{Addresses: addrs})
	mustHammer(t, c.stub, workers, 10, grpc.WaitForReady(true))
	c.settled(t)
}

// disturb does something bad every few milliseconds.
func disturb(ctx context.Context, rng *rand.Rand, servers []*h2test.Server, r *manual.Resolver, addrs []resolver.Address, w *wires) {
	children := []string{"pick_first", "round_robin", "least_request_experimental"}
	for ctx.Err() == nil {
		s := servers[rng.IntN(len(servers))]
		switch rng.IntN(8) {
		case 0, 1:
			s.SetLimit(rng.IntN(10))
		case 2:
			s.GoAway(true)
		case 3:
			s.GoAway(false)
		case 4:
			if n := w.dialled(); n > 0 {
				w.cut(max(n-1-rng.IntN(8), 0))
			}
		case 5:
			r.UpdateState(resolver.State{Addresses: addrs[rng.IntN(len(addrs)):]})
		case 6:
			r.UpdateState(resolver.State{Addresses: addrs, ServiceConfig: r.CC().ParseServiceConfig(fmt.Sprintf(
				`{"loadBalancingConfig": [{"grpcpool_scale": {"maxConnectionsPerSubchannel": %d, "maxStreamsPerConnection": %d, "childPolicy": [{%q: {}}]}}]}`,
				1+rng.IntN(4), rng.IntN(4), children[rng.IntN(len(children))]))})
		case 7:
			s.SetLimit(5)
		}
		time.Sleep(time.Duration(rng.IntN(5000)) * time.Microsecond) // pace, not waiting
	}
}
