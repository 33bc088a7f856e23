package scale_test

import (
	"context"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
)

// tunnel is a network in memory on which only a dial takes long: a path that has to be
// woken, or a proxy far away.
type tunnel struct {
	link *grpcpooltest.Link
	far  atomic.Int64 // nanoseconds
}

func newTunnel(t *testing.T) *tunnel {
	t.Helper()
	network := newInMemory()
	startServer(t, serverConfig{listener: network})
	return &tunnel{link: grpcpooltest.NewLink(network.dial)}
}

func (tn *tunnel) dial(ctx context.Context, addr string) (net.Conn, error) {
	timer := time.NewTimer(time.Duration(tn.far.Load()))
	defer timer.Stop()
	select {
	case <-timer.C:
		return tn.link.Dial(ctx, addr)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (tn *tunnel) channel(t *testing.T, opts ...grpc.DialOption) *channel {
	t.Helper()
	return newChannel(t, "passthrough:///memory", append(opts, grpc.WithContextDialer(tn.dial), grpc.WithIdleTimeout(0))...)
}

// However slow it has become to connect, up to gRPC's own 20 seconds: one call that
// waits is enough to get through, and so are many that do not.
func TestAnAddressThatHasBecomeMuchFartherIsReachedAgain(t *testing.T) {
	for far, most := range map[time.Duration]time.Duration{
		2 * time.Second: 14 * time.Second, 4 * time.Second: 19 * time.Second,
		9 * time.Second: 31 * time.Second, 18 * time.Second: 53 * time.Second,
	} {
		for name, wait := range map[string]bool{"a call that waits": true, "calls that fail fast": false} {
			t.Run(far.String()+" by "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					tn := newTunnel(t)
					c := tn.channel(t)
					mustHammer(t, c.stub, 1, 1)
					tn.far.Store(int64(far))
					tn.link.Reset()
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					start := time.Now()
					for {
						_, err := c.stub.EmptyCall(ctx, &testpb.Empty{}, grpc.WaitForReady(wait))
						if err == nil || ctx.Err() != nil {
							break
						}
						time.Sleep(50 * time.Millisecond) // the caller's pace, in virtual time
					}
					if took := time.Since(start); took > most {
						t.Errorf("reached after %v, want %v at most: %+v", took, most, c.observer.Snapshot())
					}
					elapse(30 * time.Second)
					if sub := c.observer.Snapshot().Subchannels[0]; len(sub.Connections) != 1 || sub.Dialling != 0 {
						t.Errorf("half a minute later: %+v", sub)
					}
				})
			})
		}
	}
}

// The channels of a pool come and go, and learn from each other.
func TestChannelsThatShareAMemoryReachAFarAddressInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m scale.Memory
		tn := newTunnel(t)
		mustHammer(t, tn.channel(t, scale.WithMemory(&m)).stub, 1, 1)
		tn.far.Store(int64(2 * time.Second))
		start := time.Now()
		for {
			c := tn.channel(t, scale.WithMemory(&m))
			_, err := c.stub.EmptyCall(t.Context(), &testpb.Empty{})
			_ = c.Close()
			if err == nil {
				break
			}
			if took := time.Since(start); took > 16*time.Second {
				t.Fatalf("not reached in %v: %v", took, err)
			}
		}
	})
}

// A long patience is for slow networks. When it is an outage, its end is seen as soon
// as ever, since another dial is begun beside the one that hangs.
func TestALongPatienceDoesNotDelayTheWayBack(t *testing.T) {
	outages := slices.Concat(
		[]time.Duration{20 * time.Second, 5*time.Minute + 321*time.Millisecond},
		slices.Repeat([]time.Duration{2 * time.Second}, 20)) // in one of six the call picked as the last connection ended
	for _, outage := range outages {
		synctest.Test(t, func(t *testing.T) { // row 9
			tn := newTunnel(t)
			c := tn.channel(t)
			mustHammer(t, c.stub, 1, 1)
			tn.link.Drop(true, true)
			done := make(chan time.Time)
			go func() { // nobody but one call that waits
				for {
					if _, err := c.stub.EmptyCall(context.Background(), &testpb.Empty{}, grpc.WaitForReady(true)); err == nil {
						break
					}
				}
				done <- time.Now()
			}()
			elapse(3*time.Second + outage)
			healed := time.Now()
			tn.link.Heal()
			if took := (<-done).Sub(healed); took > time.Second {
				t.Errorf("the call went through %v after an outage of %v", took, outage)
			}
		})
	}
}

// A server that is stopped twice within moments of a connection, and is back at once, is no
// hostile one: a plain channel dials at once each time, and calls are not to wait much
// longer here.
func TestTwoShortConnectionsInARowCostCallsATenthOfASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		l := newLinked(t, serverConfig{gate: gate})
		for range 2 {
			done := make(chan error)
			go func() { done <- l.call() }()
			elapse(150 * time.Millisecond)
			l.link.Reset()
			if err := <-done; status.Code(err) != codes.Unavailable {
				t.Errorf("the call on the lost connection ended with %v", err)
			}
		}
		close(gate)
		start := time.Now()
		if err := l.call(); err != nil || time.Since(start) > 101*time.Millisecond {
			t.Errorf("the next call took %v: %v", time.Since(start), err)
		}
	})
}

// The dials that a server refuses follow each other soon at first, and later about once a
// second, however long it is away.
func TestDialsThatAreRefusedFollowEachOtherSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newInMemory()
		startServer(t, serverConfig{listener: network})
		c := network.channel(t, grpc.WithIdleTimeout(0))
		network.refuse.Store(true)
		stop := callers(t, c.stub, 3)
		begun := int64(0)
		for _, tc := range []struct {
			d           time.Duration
			least, most int64
		}{
			{100 * time.Millisecond, 3, 6}, {900 * time.Millisecond, 5, 15}, {10 * time.Second, 10, 22}, {10 * time.Minute, 590, 1210},
		} {
			elapse(tc.d)
			if n := network.dials.Load() - begun; n < tc.least || n > tc.most {
				t.Errorf("%d dials in the next %v, want %d to %d", n, tc.d, tc.least, tc.most)
			}
			begun = network.dials.Load()
		}
		stop()
		network.refuse.Store(false)
		start := time.Now()
		if _, err := c.stub.EmptyCall(t.Context(), &testpb.Empty{}, grpc.WaitForReady(true)); err != nil || time.Since(start) > time.Second {
			t.Errorf("a call went through after %v: %v", time.Since(start), err)
		}
	})
}

// A server that is restarted twice in a row gives no reason to fail calls: those that
// come meanwhile wait.
func TestCallsWaitWhileADialIsHeldBackForAMoment(t *testing.T) {
	for _, policy := range []string{"pick_first", "round_robin"} {
		t.Run(policy, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gate := make(chan struct{})
				l := newLinked(t, serverConfig{gate: gate}, grpc.WithDefaultServiceConfig(`{"loadBalancingPolicy": "`+policy+`"}`))
				for range 3 {
					done := make(chan error)
					go func() { done <- l.call() }()
					elapse(200 * time.Millisecond) // it is connected, and a call is under way
					l.link.Reset()
					if err := <-done; status.Code(err) != codes.Unavailable {
						t.Errorf("the call on the lost connection ended with %v", err)
					}
				}
				close(gate)
				start := time.Now()
				if err := l.call(); err != nil {
					t.Errorf("the next call failed: %v", err)
				}
				if took := time.Since(start); took > 850*time.Millisecond {
					t.Errorf("the next call took %v", took)
				}
			})
		})
	}
}

// Connecting took long once, and the network is near again. The end of an outage is noticed
// sooner than by TCP, which asks again after 1, 3, 7 and 15 seconds.
func TestASlowDialDoesNotDelayTheWayBackMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTunnel(t)
		tn.far.Store(int64(9 * time.Second))
		var dark atomic.Bool
		c := newChannel(t, "passthrough:///memory", grpc.WithIdleTimeout(0), grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			for again := time.Second; dark.Load(); again *= 2 {
				select {
				case <-time.After(again):
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			return tn.dial(ctx, addr)
		}))
		mustWait(t, c)
		tn.far.Store(0)
		elapse(time.Hour)
		dark.Store(true)
		tn.link.Reset()
		stop := callers(t, c.stub, 1)
		elapse(8 * time.Second)
		stop()
		healed := time.Now()
		dark.Store(false)
		mustWait(t, c)
		if took, most := time.Since(healed), 3200*time.Millisecond; took > most {
			t.Errorf("the call went through %v after the outage, want %v at most", took, most)
		}
	})
}
