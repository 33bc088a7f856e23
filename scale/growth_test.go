package scale_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// strictInMemory runs a strict server on a network of its own.
func strictInMemory(tb testing.TB, opts ...h2test.Option) (*inMemory, *h2test.Server) {
	tb.Helper()
	network := newInMemory()
	s := h2test.Start(network, opts...)
	tb.Cleanup(s.Close)
	return network, s
}

func TestConnectionsThatAreNotNeededAreClosedAndOneIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, s := strictInMemory(t, h2test.WithLimit(2), h2test.WithDelay(10*time.Millisecond))
		c := network.channel(t, grpc.WithIdleTimeout(0))
		mustHammer(t, c.stub, 12, 3)
		if got := c.connections(); got != 6 {
			t.Fatalf("%d connections for 12 callers with a limit of 2, want 6", got)
		}
		elapse(59 * time.Second)
		if got := c.connections(); got != 6 {
			t.Errorf("%d connections after 59 s, want 6", got)
		}
		elapse(17 * time.Second)
		if got := s.Counts().Open; got != 1 {
			t.Errorf("%d connections after 76 s, want 1", got)
		}
		elapse(10 * time.Minute)
		if got := s.Counts(); got.Open != 1 || got.Connections != 6 {
			t.Errorf("ten minutes later the server saw %+v, want the 1 of 6 that was left", got)
		}
		if sub := c.observer.Snapshot().Subchannels[0]; sub.Shrunk != 5 || sub.Lost != 0 || sub.LastError != "" {
			t.Errorf("the snapshot is %+v, want 5 shrunk and none lost", sub)
		}
		c.afterAProbe() // one in flight would have a stream of its own
		mustHammer(t, c.stub, 4, 3)
		if got := c.connections(); got != 2 {
			t.Errorf("%d connections for 4 callers afterwards, want 2", got)
		}
	})
}

func TestAConnectionInUseIsNotClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newInMemory()
		s := startServer(t, serverConfig{listener: network, limit: 1})
		c := network.channel(t, scale.WithShrinkAfter(10*time.Second))
		ctx := context.Background()
		first, err := c.stub.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		second, err := c.stub.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		elapse(time.Minute) // a stream that nothing moves on is a stream
		if got := c.connections(); got != 2 {
			t.Fatalf("%d connections, want the 2 that have streams", got)
		}
		_ = first.CloseSend()
		_, _ = first.Recv()
		elapse(time.Minute)
		if got := c.connections(); got != 2 {
			t.Fatalf("%d connections, want the oldest and the one with a stream", got)
		}
		if err := second.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
			t.Error(err)
		}
		if _, err := second.Recv(); err != nil {
			t.Errorf("the stream on the younger connection: %v", err)
		}
		_ = second.CloseSend()
		_, _ = second.Recv()
		// Calls now and then, one at a time, are no reason to keep it.
		for range 20 {
			if _, err := c.stub.EmptyCall(ctx, &testpb.Empty{}); err != nil {
				t.Fatal(err)
			}
			elapse(time.Second)
		}
		if got := c.connections(); got != 1 {
			t.Errorf("%d connections, want 1", got)
		}
		_ = s
	})
}

func TestShrinkAfterZeroKeepsEveryConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, _ := strictInMemory(t, h2test.WithLimit(1), h2test.WithDelay(10*time.Millisecond))
		c := network.channel(t, scale.WithShrinkAfter(0), grpc.WithIdleTimeout(0), scale.WithProbeInterval(time.Minute))
		mustHammer(t, c.stub, 5, 2)
		elapse(30 * time.Minute)
		if got := c.connections(); got != 5 {
			t.Errorf("%d connections, want 5", got)
		}
	})
}

func TestGrowthDialsAllThatIsNeededAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, _ := strictInMemory(t, h2test.WithLimit(100), h2test.WithDelay(200*time.Millisecond))
		network.dialTime = 50 * time.Millisecond
		c := network.channel(t)
		start := time.Now()
		mustHammer(t, c.stub, 1000, 1)
		// One dial, then nine side by side, then the calls.
		if took := time.Since(start); took != 300*time.Millisecond {
			t.Errorf("a cold burst of 1,000 calls took %v, want 300 ms", took)
		}
		if n := network.dials.Load(); n != 10 {
			t.Errorf("%d dials, want 10", n)
		}
	})
}

func TestABurstAfterIdlenessDialsAllThatItNeedsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, s := strictInMemory(t, h2test.WithLimit(100), h2test.WithDelay(200*time.Millisecond))
		network.dialTime = 50 * time.Millisecond
		c := network.channel(t, grpc.WithIdleTimeout(time.Minute))
		mustHammer(t, c.stub, 1, 1)
		elapse(2 * time.Minute)
		if c.GetState() != connectivity.Idle || s.Counts().Open != 0 {
			t.Fatalf("the channel is %v with %d connections, want it IDLE", c.GetState(), s.Counts().Open)
		}
		start := time.Now()
		mustHammer(t, c.stub, 1000, 1)
		if took := time.Since(start); took != 250*time.Millisecond {
			t.Errorf("a burst of 1,000 calls to a known address took %v, want 250 ms", took)
		}
		if n := network.dials.Load(); n != 11 {
			t.Errorf("%d dials, want 1 and then 10", n)
		}
	})
}

func TestGrowthKeepsToItsDialRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, _ := strictInMemory(t, h2test.WithLimit(1), h2test.WithDelay(time.Hour))
		c := network.channel(t, scale.WithMaxConnections(40), scale.WithProbeInterval(0))
		stop := callers(t, c.stub, 100)
		defer stop()
		synctest.Wait()
		if n := network.dials.Load(); n != 17 {
			t.Errorf("%d dials at once, want the first and 16 more", n)
		}
		elapse(500 * time.Millisecond)
		if n := network.dials.Load(); n != 27 {
			t.Errorf("%d dials after 500 ms, want 10 more", n)
		}
		elapse(time.Minute)
		if n := network.dials.Load(); n != 40 {
			t.Errorf("%d dials after a minute, want the maximum of 40", n)
		}
	})
}

func TestAFailedDialHoldsGrowthBackAndTheCallsAreServedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, s := strictInMemory(t, h2test.WithLimit(1), h2test.WithDelay(10*time.Millisecond))
		c := network.channel(t, scale.WithMaxConnections(2))
		mustHammer(t, c.stub, 1, 1)
		network.refuse.Store(true)
		stop := callers(t, c.stub, 10)
		defer stop()
		before := s.Counts().Calls
		elapse(700 * time.Millisecond) // gRPC's first backoff is 0.8 to 1.2 s
		if n := network.dials.Load(); n != 2 {
			t.Errorf("%d dials, want the first and the one that failed", n)
		}
		if n := s.Counts().Calls - before; n < 60 {
			t.Errorf("%d calls were served on the one connection in 700 ms, want about 70", n)
		}
		network.refuse.Store(false)
		elapse(time.Second)
		if got := c.connections(); got != 2 {
			t.Errorf("%d connections after the backoff, want 2", got)
		}
	})
}

func TestAConnectionThatDoesNotLastIsNotDialledInALoop(t *testing.T) {
	for _, fault := range []h2test.Fault{h2test.CloseAtOnce, h2test.GoAwayAtOnce} {
		for _, child := range []string{"pick_first", "round_robin"} {
			t.Run(fault.String()+" under "+child, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					network, s := strictInMemory(t, h2test.WithLimit(10), h2test.WithFault(fault))
					c := network.channel(t, grpc.WithDefaultServiceConfig(`{"loadBalancingPolicy": "`+child+`"}`))
					stop := callers(t, c.stub, 20)
					elapse(3 * time.Second)
					if n := network.dials.Load(); n < 3 || n > 5 {
						t.Errorf("%d dials in 3 s, want 3 to 5", n)
					}
					stop()
					// Fail-fast calls learn why in the meantime.
					_, err := c.stub.EmptyCall(context.Background(), &testpb.Empty{})
					if err == nil || !strings.Contains(err.Error(), "closed") && !strings.Contains(err.Error(), "GOAWAY") {
						t.Errorf("the error is %v, want one that tells how the connection ended", err)
					}
					if err != nil && strings.Contains(err.Error(), "closed by the peer: ") && !strings.Contains(err.Error(), "error reading from server: EOF") && !strings.Contains(err.Error(), "connection error: desc = ") {
						t.Errorf("gRPC's words are missing in %v", err)
					}
					// Somebody who waits is served soon after the server is well again.
					s.SetFault(h2test.NoFault)
					start := time.Now()
					mustHammer(t, c.stub, 1, 1, grpc.WaitForReady(true))
					if took := time.Since(start); took > 3*time.Second { // gRPC backs off from dials that fail, and some do
						t.Errorf("the first call after the trouble took %v, want at most 3 s", took)
					}
				})
			})
		}
	}
}

func TestAConnectionThatLivedIsReplacedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, s := strictInMemory(t, h2test.WithLimit(10))
		c := network.channel(t)
		for range 20 {
			mustHammer(t, c.stub, 1, 1)
			elapse(2 * time.Second)
			s.GoAway(false)
			synctest.Wait() // it has arrived, or the call might be served before it
			start := time.Now()
			mustHammer(t, c.stub, 1, 1)
			if took := time.Since(start); took > 0 {
				t.Fatalf("the call after a GOAWAY took %v of virtual time, want 0", took)
			}
		}
		if n := network.dials.Load(); n != 21 {
			t.Errorf("%d dials, want 21", n)
		}
	})
}
