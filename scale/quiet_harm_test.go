package scale_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
)

// What the proof before the first call after a pause must not do to that call.

// A round trip of more than 5 s would never prove anything, were the answer's age counted.
func TestTheFirstCallAfterAPauseIsMadeHoweverSlowTheNetworkIs(t *testing.T) {
	for _, delay := range []time.Duration{time.Second, 2600 * time.Millisecond} { // one way
		synctest.Test(t, func(t *testing.T) {
			network := newInMemory()
			startServer(t, serverConfig{listener: network})
			links := [2]*grpcpooltest.Link{grpcpooltest.NewLink(network.dial), grpcpooltest.NewLink(network.dial)}
			opts := []grpc.DialOption{grpc.WithIdleTimeout(0), grpc.WithTransportCredentials(insecure.NewCredentials())}
			plain, err := grpc.NewClient("passthrough:///memory", slices.Concat(opts, []grpc.DialOption{links[0].DialOption()})...)
			if err != nil {
				t.Fatal(err)
			}
			defer plain.Close()
			ours := newChannel(t, "passthrough:///memory", slices.Concat(opts, []grpc.DialOption{links[1].DialOption()})...)
			for i, stub := range []testpb.TestServiceClient{testpb.NewTestServiceClient(plain), ours.stub} {
				mustHammer(t, stub, 1, 1)
				links[i].Delay(time.Second)
				elapse(10 * time.Minute)
				links[i].Delay(delay)
				elapse(time.Hour)
				begun := time.Now()
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				if _, err := stub.EmptyCall(ctx, &testpb.Empty{}); err != nil {
					t.Errorf("with %v one way, channel %d: after %v: %v", delay, i, time.Since(begun), err)
				}
			}
			if sub := ours.observer.Snapshot().Subchannels[0]; sub.Ejected != 0 {
				t.Errorf("with %v one way: %+v", delay, sub)
			}
		})
	}
}

// The answer to the question that was asked for the probe is older than 5 s when the call
// comes, so HTTP/2 is asked again.
func TestACallDoesNotWaitForAProbeThatHangsForLong(t *testing.T) {
	for _, after := range []time.Duration{8 * time.Second, 14 * time.Second, 16 * time.Second, 25 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			l, seen := newWatched(t, serverConfig{register: func(s *grpc.Server) { healthpb.RegisterHealthServer(s, hungHealth{}) }},
				scale.WithProbeTimeout(30*time.Second))
			if err := l.call(); err != nil {
				t.Fatal(err)
			}
			for probes := 0; probes == 0; probes, _ = seen.counts() {
				elapse(time.Millisecond)
			}
			elapse(after)
			begun := time.Now()
			if err := l.call(); err != nil || time.Since(begun) > 0 {
				t.Errorf("%v after the probe: the call ended after %v with %v", after, time.Since(begun), err)
			}
		})
	}
}

// The oldest connection has died in its quiet. The call that waits for it goes to the other
// one when it is silent, and does not wait for the verdict.
func TestACallThatWaitsForADeadConnectionGoesToAnotherQuietOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newInMemory()
		startServer(t, serverConfig{listener: network, limit: 20})
		link := grpcpooltest.NewLink(network.dial)
		var dials atomic.Int64
		c := newChannel(t, "passthrough:///memory", grpc.WithIdleTimeout(0), scale.WithShrinkAfter(0),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				switch dials.Add(1) {
				case 1:
					return link.Dial(ctx, addr)
				case 2:
					return network.dial(ctx, addr)
				default:
					<-ctx.Done() // no successor
					return nil, ctx.Err()
				}
			}))
		l := &linked{channel: c, link: link}
		streams := make([]testpb.TestService_FullDuplexCallClient, 0, 20)
		for range 20 {
			streams = append(streams, l.stream(t))
		}
		for _, s := range streams {
			end(s)
		}
		elapse(time.Hour)
		if n := l.connections(); n != 2 {
			t.Fatalf("%d connections, want 2", n)
		}
		c.afterAProbe()
		link.Blackhole()
		elapse(6 * time.Second)
		begun := time.Now()
		if err := l.call(); err != nil || time.Since(begun) > 1200*time.Millisecond {
			t.Errorf("the call ended after %v with %v", time.Since(begun), err)
		}
	})
}

// Were nothing learned from an answer that ends a silence, the connection would fall silent
// at every probe, and a successor would be dialled each time.
func TestANetworkThatBecomesSlowCostsHardlyAnyDials(t *testing.T) {
	hangs := func(s *grpc.Server) { healthpb.RegisterHealthServer(s, hungHealth{}) }
	for name, tc := range map[string]struct {
		register func(*grpc.Server)
		dials    int64  // at most; those for a probe that has no answer follow less and less often
		within   string // an ejection, when the network was quick again for a while and is dead
	}{
		"no health service":           {nil, 3, "within 8s"}, // the latest probes were slow
		"a health service that hangs": {hangs, 20, "within 3s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, _ := newWatched(t, serverConfig{register: tc.register})
				stream := l.stream(t)
				echoes(t, stream)
				l.link.Delay(time.Second) // one way
				elapse(10 * time.Minute)
				echoes(t, stream)
				if sub := l.subchannel(); l.link.Dials() > tc.dials || sub.Ejected != 0 || sub.Lost != 0 {
					t.Errorf("%d dials: %+v", l.link.Dials(), sub)
				}
				l.link.Delay(0)
				elapse(time.Minute)
				l.link.Blackhole()
				if _, err := stream.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), tc.within) {
					t.Errorf("the stream ended with %v, want Unavailable and %q", err, tc.within)
				}
			})
		})
	}
}
