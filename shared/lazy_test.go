package shared_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/shared"
)

// getAtOnce is a Get that must take no time, and its channel.
func getAtOnce(t *testing.T, p *shared.Pool) (grpcpool.PoolClientConn, *grpc.ClientConn) {
	t.Helper()
	start := time.Now()
	l := get(t, p)
	if took := time.Since(start); took != 0 {
		t.Errorf("Get took %v", took)
	}
	return l, l.Connection()
}

func TestALazyPoolLendsBeforeAnythingIsConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, server := inMemory(t, time.Minute, shared.WithLazy())
		l, conn := getAtOnce(t, p)
		defer l.Return()
		time.Sleep(time.Second)
		if n := server.Accepted(); conn.GetState() != connectivity.Idle || n != 0 {
			t.Errorf("the channel is %v, and the server has seen %d connections", conn.GetState(), n)
		}
		if s := p.Stats(); s.Dials != 0 || s.Tests != 0 || s.State != shared.StateIdle || s.Leases != 1 || !s.Settings.Lazy {
			t.Errorf("stats: %+v", s)
		}
		if _, err := testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
			t.Error(err)
		}
		if s := p.Stats(); s.Dials != 1 || s.Channels != 1 || s.State != shared.StateReady {
			t.Errorf("stats after a call: %+v", s)
		}
		again, same := getAtOnce(t, p)
		defer again.Return()
		if same != conn {
			t.Error("another channel")
		}
	})
}

// Beside it is a pool that is not lazy: its Get fails.
func TestALazyPoolLendsInAnOutage(t *testing.T) {
	for name, connected := range map[string]bool{"that began before the first Get": false, "that began later": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, server := inMemory(t, 0, shared.WithLazy())
				proven, other := inMemory(t, 0)
				if connected {
					for _, p := range []*shared.Pool{p, proven} {
						borrow(t, p)
						if err := emptyCall(p)(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
				}
				server.Stop()
				other.Stop()
				time.Sleep(10 * time.Second)
				l, conn := getAtOnce(t, p)
				defer l.Return()
				if _, err := proven.Get(t.Context()); !errors.Is(err, grpcpool.ErrConnectionNotOK) {
					t.Errorf("Get of a pool that is not lazy: %v", err)
				}
				client := testpb.NewTestServiceClient(conn)
				if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); status.Code(err) != codes.Unavailable {
					t.Errorf("a call on the lease: %v", err)
				}
				time.AfterFunc(30*time.Second, server.Start)
				start := time.Now()
				_, err := client.EmptyCall(t.Context(), &testpb.Empty{}, grpc.WaitForReady(true))
				if took := time.Since(start); err != nil || took < 30*time.Second || took > 32*time.Second {
					t.Errorf("a call that waits took %v: %v", took, err)
				}
			})
		})
	}
}

func TestALeaseOfALazyPoolKeepsTheChannelOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := inMemory(t, time.Minute, shared.WithLazy())
		l, conn := getAtOnce(t, p)
		time.Sleep(10 * time.Minute)
		if closed(conn) {
			t.Error("the channel was closed under a lease")
		}
		if _, err := testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Minute)
		if closed(conn) {
			t.Error("the connected channel was closed under a lease")
		}
		l.Return()
		time.Sleep(2 * time.Minute)
		if !closed(conn) || p.Stats().Channels != 0 || p.Stats().IdleClosed != 1 {
			t.Errorf("open long after its last lease: %+v", p.Stats())
		}
		again, other := getAtOnce(t, p)
		defer again.Return()
		if other == conn {
			t.Error("the closed channel was lent")
		}
		if _, err := testpb.NewTestServiceClient(other).EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
			t.Error(err)
		}
	})
}

// A channel that was never used is closed as any other, and its leases are seen.
func TestALazyPoolClosesAChannelThatWasNeverConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := inMemory(t, time.Minute, shared.WithLazy(), shared.WithLeakDetection(time.Second))
		l, conn := getAtOnce(t, p)
		time.Sleep(2 * time.Second)
		if h := p.Holders(); len(h) != 1 || h[0].Leaked != 1 || !strings.HasSuffix(h[0].Func, ".get") {
			t.Errorf("holders: %+v", h)
		}
		l.Return()
		time.Sleep(2 * time.Minute)
		if !closed(conn) {
			t.Error("open long after its last lease")
		}
	})
}

func TestALazyPoolThatIsClosedLendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, before := range map[string]func(*shared.Pool){
			"never used":      func(*shared.Pool) {},
			"with a channel":  func(p *shared.Pool) { borrow(t, p) },
			"with connection": func(p *shared.Pool) { _ = emptyCall(p)(t.Context()) },
		} {
			p, _ := inMemory(t, time.Minute, shared.WithLazy())
			before(p)
			if err := p.Close(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if l, err := p.Get(t.Context()); !errors.Is(err, grpcpool.ErrClosed) || status.Code(err) != codes.Canceled || l != nil {
				t.Errorf("%s: Get after Close: %v, %v", name, l, err)
			}
		}
	})
}

// Close ends a lease of a lazy pool after the drain timeout, also one that was never used.
func TestCloseWaitsForALeaseOfALazyPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := inMemory(t, time.Minute, shared.WithLazy(), shared.WithDrainTimeout(2*time.Second))
		l, conn := getAtOnce(t, p)
		start := time.Now()
		if err := p.Close(); err == nil || time.Since(start) != 2*time.Second || !closed(conn) {
			t.Errorf("Close took %v: %v", time.Since(start), err)
		}
		l.Return()
		if n := p.Stats().Leases; n != 0 {
			t.Errorf("%d leases out", n)
		}
	})
}

func TestLazyOverAFactoryWithoutChannelsIsAMistake(t *testing.T) {
	p := newPool(t, &fakeFactory{}, 0, shared.WithLazy())
	_, err := p.Get(t.Context())
	if status.Code(err) != codes.FailedPrecondition || !errors.Is(err, grpcpool.ErrConnectionNotOK) || !strings.Contains(err.Error(), "WithLazy") {
		t.Errorf("Get: %v", err)
	}
	if err := emptyCall(p)(t.Context()); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "WithLazy") {
		t.Errorf("an RPC: %v", err)
	}
}

// Where no channel can be made, Get says so, and does not lend nothing.
func TestALazyPoolWhoseChannelCannotBeMadeSaysSo(t *testing.T) {
	p := newPool(t, noChannels{}, 0, shared.WithLazy())
	for range 2 {
		if l, err := p.Get(context.Background()); !errors.Is(err, errScripted) || !errors.Is(err, grpcpool.ErrConnectionNotOK) || l != nil {
			t.Errorf("Get: %v, %v", l, err)
		}
	}
}
