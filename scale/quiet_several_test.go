package scale_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/scale"
)

// Several connections to one server, of which some are quiet.

// end ends a stream.
func end(s testpb.TestService_FullDuplexCallClient) {
	_ = s.CloseSend()
	_, _ = s.Recv()
}

// Streams fill the older connection, and calls go to a younger one. When the streams have
// ended the calls come back, and the younger connection is closed.
func TestAQuietConnectionDoesNotLoseItsCallsToAYoungerOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := newWatched(t, serverConfig{limit: 20}, scale.WithShrinkAfter(10*time.Second))
		streams := make([]testpb.TestService_FullDuplexCallClient, 0, 19)
		for range 19 {
			streams = append(streams, l.stream(t))
		}
		defer l.calls(1, 20*time.Millisecond)()
		elapse(5 * time.Second)
		if n := l.connections(); n != 2 {
			t.Fatalf("%d connections, want 2", n)
		}
		for _, s := range streams {
			end(s)
		}
		elapse(30 * time.Second)
		if n := l.connections(); n != 1 {
			t.Errorf("%d connections for one caller", n)
		}
	})
}

// Without a limit of the server a call may go beyond the soft limit of a connection in use.
// A quiet one with room is woken, and takes the next.
func TestAQuietConnectionTakesCallsBeforeAnotherIsOverloaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		l, _ := newWatched(t, serverConfig{}, scale.WithStreamsPerUnlimitedConnection(5), scale.WithShrinkAfter(0))
		var hold atomic.Bool
		l.server.delay = func() time.Duration {
			if hold.Load() {
				<-gate
			}
			return 0
		}
		streams := make([]testpb.TestService_FullDuplexCallClient, 0, 6)
		for range 6 {
			streams = append(streams, l.stream(t))
		}
		end(streams[4])
		end(streams[5])
		defer l.calls(1, 20*time.Millisecond)()
		elapse(10 * time.Second)
		hold.Store(true)
		elapse(20 * time.Millisecond) // the caller's call stays
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { _ = l.call() })
			synctest.Wait()
		}
		conns := l.subchannel().Connections
		if len(conns) != 2 || conns[0].InFlight > 6 || conns[1].InFlight < 3 {
			t.Errorf("the connections are %+v", conns)
		}
		close(gate)
		wg.Wait()
	})
}

// Calls come in bursts with pauses of any length, some of them are given up, and the limit
// makes some wait. None may be forgotten.
func TestRandomCallsOnConnectionsThatFallQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := newWatched(t, serverConfig{limit: 12}, scale.WithMaxConnections(3), scale.WithShrinkAfter(20*time.Second))
		l.link.Delay(5 * time.Millisecond)
		var wg sync.WaitGroup
		for caller := range uint64(20) {
			rng := rand.New(rand.NewPCG(caller, 1))
			wg.Go(func() {
				for range 100 {
					time.Sleep(time.Duration(rng.ExpFloat64() * float64(rng.IntN(20)) * float64(time.Second)))
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					switch rng.IntN(5) {
					case 0:
						ctx = scale.ContextWithPriority(ctx)
					case 1:
						time.AfterFunc(time.Duration(rng.IntN(30))*time.Millisecond, cancel)
					}
					_, err := l.stub.EmptyCall(ctx, &testpb.Empty{})
					if err != nil && status.Code(err) != codes.Canceled {
						t.Error(err)
					}
					cancel()
				}
			})
		}
		wg.Wait()
		elapse(time.Minute)
		if l.inFlight() != 0 || l.waiters() != 0 || l.subchannel().Ejected != 0 {
			t.Errorf("at the end: %+v", l.subchannel())
		}
	})
}
