package scale_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
)

// disturb does something at random to what the channel depends on, and lets some time pass:
// connections fall quiet and silent, are ejected or answer again, and are replaced.
func (l *linked) disturb(rng *rand.Rand, replacer *scale.Replacer) {
	switch rng.IntN(12) {
	case 0:
		l.link.Blackhole()
	case 1:
		l.link.Drop(rng.IntN(2) == 0, true)
	case 2:
		l.link.Hang()
	case 3:
		l.link.Refuse()
	case 4:
		l.link.Reset()
	case 5:
		l.link.Delay(time.Duration(rng.IntN(1500)) * time.Millisecond)
	case 6:
		replacer.Replace("test", 0)
	case 7: // a stop that costs nothing
		l.link.Hang()
		elapse(time.Duration(rng.IntN(2500)) * time.Millisecond)
		l.link.Heal()
	default:
		l.link.Heal()
		l.link.Delay(0)
	}
	elapse(time.Duration(rng.ExpFloat64() * float64(rng.IntN(10)) * float64(time.Second)))
}

// Whatever happens to quiet and silent connections, a call is served soon after the network
// is well again, and Close ends everything, whatever it meets.
func TestNothingStaysInDoubtWhateverHappens(t *testing.T) {
	rounds := uint64(24)
	if testing.Short() {
		rounds = 6
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for round := range rounds {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, round))
			replacer := new(scale.Replacer)
			r := manual.NewBuilderWithScheme("random")
			addrs := []resolver.Address{{Addr: "a"}, {Addr: "b"}}[:1+rng.IntN(2)]
			r.InitialState(resolver.State{Addresses: addrs})
			opts := []grpc.DialOption{
				scale.WithMaxConnections(1 + rng.IntN(4)), scale.WithShrinkAfter(20 * time.Second), scale.WithReplacer(replacer),
				scale.WithResolvers(r), scale.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
			}
			if rng.IntN(4) == 0 {
				opts = append(opts, scale.WithQueueInTransport())
			}
			network := newInMemory()
			s := startServer(t, serverConfig{listener: network, limit: uint32(1 + rng.IntN(15))})
			link := grpcpooltest.NewLink(network.dial)
			opts = append(opts, link.DialOption(), grpc.WithIdleTimeout(0))
			l := &linked{newChannel(t, "random:///x", opts...), link, s}
			ctx, stop := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			for caller := range uint64(12) {
				rng := rand.New(rand.NewPCG(seed+caller, round))
				wg.Go(func() {
					for ctx.Err() == nil {
						callCtx, cancel := context.WithTimeout(ctx, time.Duration(1+rng.IntN(20))*time.Second)
						if rng.IntN(4) == 0 {
							if stream, err := l.stub.FullDuplexCall(callCtx); err == nil {
								_, _ = stream.Recv() // until the time is over
							}
						} else {
							_, _ = l.stub.EmptyCall(callCtx, &testpb.Empty{}, grpc.WaitForReady(rng.IntN(2) == 0))
						}
						cancel()
						time.Sleep(time.Duration(rng.ExpFloat64() * float64(rng.IntN(30)) * float64(time.Second)))
					}
				})
			}
			for range 30 {
				l.disturb(rng, replacer)
			}
			if round%2 == 0 { // Close meets all this as it is
				_ = l.Close()
				stop()
				wg.Wait()
				return
			}
			l.link.Heal()
			l.link.Delay(0)
			stop()
			wg.Wait()
			elapse(40 * time.Second)
			for range 2 * len(addrs) {
				begun := time.Now()
				if err := l.call(); err != nil || time.Since(begun) > time.Second {
					t.Errorf("round %d: a call ended after %v with %v", round, time.Since(begun), err)
				}
			}
			elapse(time.Second)
			if l.inFlight() != 0 || l.waiters() != 0 {
				t.Errorf("round %d: at the end: %+v", round, l.observer.Snapshot())
			}
		})
	}
}
