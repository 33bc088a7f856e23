package shared_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/shared"
)

func TestManyCallersShareOneDialAndOneChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{onDial: func(context.Context) error { time.Sleep(time.Second); return nil }}
		p := newPool(t, f, 0)
		var wg sync.WaitGroup
		leases := make([]grpcpool.PoolClientConn, 100)
		for i := range leases {
			wg.Go(func() { leases[i] = get(t, p) })
		}
		wg.Wait()
		f.wantOneDial(t, 0)
		conn := leases[0].Connection()
		for _, l := range leases {
			if l.Connection() != conn {
				t.Fatal("two callers have different channels")
			}
			l.Return()
		}
	})
}

func TestALeaseReturnedTwiceCountsOnce(t *testing.T) {
	p := newPool(t, &fakeFactory{}, 0)
	a, b := get(t, p), get(t, p)
	a.Return()
	a.Return()
	if n := p.Stats().Leases; n != 1 {
		t.Errorf("%d leases out, want 1", n)
	}
	if a.Connection() != nil || b.Connection() == nil {
		t.Error("Connection must be nil once returned, and only then")
	}
	b.Return()
}

func TestADialOutlivesTheCallerWhoBeganIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{onDial: func(ctx context.Context) error {
			select {
			case <-time.After(10 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		p := newPool(t, f, 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := p.Get(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("the caller got %v", err)
		}
		borrow(t, p) // joins the dial
		f.wantOneDial(t, 0)
	})
}

func TestADialIsGivenUpAfterTheDialTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{onDial: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		p := newPool(t, f, 0, shared.WithDialTimeout(3*time.Second))
		start := time.Now()
		_, err := p.Get(t.Context())
		if took := time.Since(start); took != 3*time.Second || !errors.Is(err, grpcpool.ErrConnectionNotOK) {
			t.Errorf("Get failed after %v with %v", took, err)
		}
	})
}

func TestACallerPastItsDeadlineIsToldTheLastError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, &fakeFactory{onDial: failDial}, 0, shared.WithName("orders"), shared.WithWaitForReady())
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := p.Get(ctx)
		for _, part := range []string{"grpcpool: ", `"orders"`, "deadline exceeded", errScripted.Error()} {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("error %v does not say %q", err, part)
			}
		}
		if !errors.Is(err, errScripted) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v does not wrap both the end and the last error", err)
		}
	})
}

func TestAnErrorOfTheFactoryIsWrapped(t *testing.T) {
	p := newPool(t, &fakeFactory{onDial: failDial}, 0)
	_, err := p.Get(t.Context())
	if !errors.Is(err, grpcpool.ErrConnectionNotOK) || !errors.Is(err, errScripted) || status.Code(err) != codes.Unavailable {
		t.Errorf("Get: %v (code %v)", err, status.Code(err))
	}
	_, err = testpb.NewTestServiceClient(p).EmptyCall(t.Context(), &testpb.Empty{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), errScripted.Error()) {
		t.Errorf("an RPC on the pool: %v", err)
	}
}

func TestAPoolWithoutAFactorySaysSo(t *testing.T) {
	p := shared.New(nil, 0, nil)
	defer p.Close()
	if _, err := p.Get(t.Context()); !errors.Is(err, grpcpool.ErrConnectionNotOK) || !strings.Contains(err.Error(), "nil ConnectionFactory") {
		t.Errorf("Get: %v", err)
	}
}

func TestCloseWaitsForTheLeasesThatAreOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, &fakeFactory{}, 0)
		l := get(t, p)
		conn := l.Connection()
		time.AfterFunc(3*time.Second, func() {
			if closed(conn) {
				t.Error("the channel was closed under a lease")
			}
			l.Return()
		})
		start := time.Now()
		if err := p.Close(); err != nil || time.Since(start) != 3*time.Second {
			t.Errorf("Close took %v: %v", time.Since(start), err)
		}
		if !closed(conn) {
			t.Error("the channel is open after Close")
		}
		if _, err := p.Get(t.Context()); !errors.Is(err, grpcpool.ErrClosed) || status.Code(err) != codes.Canceled {
			t.Errorf("Get after Close: %v", err)
		}
		if err := p.Close(); err != nil {
			t.Errorf("closing again: %v", err)
		}
	})
}

func TestCloseEndsTheLeasesAfterTheDrainTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, &fakeFactory{}, 0, shared.WithDrainTimeout(2*time.Second))
		l := get(t, p)
		conn := l.Connection()
		start := time.Now()
		err := p.Close()
		if time.Since(start) != 2*time.Second || err == nil || !strings.Contains(err.Error(), "1 lease out") {
			t.Errorf("Close took %v: %v", time.Since(start), err)
		}
		if !closed(conn) {
			t.Error("the channel is open after Close")
		}
		l.Return()
		if n := p.Stats().Leases; n != 0 {
			t.Errorf("%d leases out after the late Return", n)
		}
	})
}

func TestShutdownGivesUpWithItsContextAndCanBeTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, &fakeFactory{}, 0)
		l := get(t, p)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || closed(l.Connection()) {
			t.Errorf("Shutdown: %v, channel closed: %v", err, closed(l.Connection()))
		}
		l.Return()
		if err := p.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestCallersWaitingInGetAreToldThatThePoolCloses(t *testing.T) {
	for name, opts := range map[string][]shared.Option{"fail fast": nil, "wait for ready": {shared.WithWaitForReady()}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeFactory{onDial: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
				p := newPool(t, f, 0, opts...)
				time.AfterFunc(time.Second, func() { p.Close() })
				start := time.Now()
				if _, err := p.Get(t.Context()); !errors.Is(err, grpcpool.ErrClosed) || time.Since(start) != time.Second {
					t.Errorf("Get ended after %v: %v", time.Since(start), err)
				}
			})
		})
	}
}

func TestAChannelThatArrivesAfterCloseIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{onDial: func(context.Context) error { time.Sleep(2 * time.Second); return nil }} // deaf to its context
		p := newPool(t, f, 0)
		time.AfterFunc(time.Second, func() { p.Close() })
		if _, err := p.Get(t.Context()); !errors.Is(err, grpcpool.ErrClosed) {
			t.Errorf("Get: %v", err)
		}
		if len(f.conns) != 1 || !closed(f.conns[0]) {
			t.Error("the late channel is open")
		}
	})
}

func TestStatsTellTheStateOfThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{onDial: func(context.Context) error { time.Sleep(time.Second); return errScripted }}
		p := newPool(t, f, time.Minute, shared.WithName("orders"))
		want := func(state shared.State) {
			t.Helper()
			synctest.Wait()
			if got := p.Stats().State; got != state {
				t.Errorf("state %q, want %q", got, state)
			}
		}
		want(shared.StateIdle)
		go p.Get(t.Context())
		want(shared.StateConnecting)
		if n := p.Stats().Waiting; n != 1 {
			t.Errorf("%d callers waiting, want 1", n)
		}
		time.Sleep(time.Second)
		want(shared.StateFailing)
		if err := p.Stats().LastError; !errors.Is(err, errScripted) {
			t.Errorf("last error %v", err)
		}
		f.script(nil, nil)
		time.Sleep(time.Second)
		l := get(t, p)
		want(shared.StateReady)
		s := p.Stats()
		if s.Name != "orders" || s.Leases != 1 || s.Channels != 1 || s.Dials != 2 || s.DialsFailed != 1 || s.LastError != nil {
			t.Errorf("stats %+v", s)
		}
		l.Return()
		time.Sleep(2 * time.Minute)
		want(shared.StateIdle)
		p.Close()
		want(shared.StateClosed)
	})
}

func TestStatsShowTheConnectionsOfTheChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := inMemory(t, time.Minute)
		if n := len(p.Stats().Current.Subchannels); n != 0 {
			t.Errorf("%d subchannels before the first Get", n)
		}
		s, err := testpb.NewTestServiceClient(p).FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		inside := p.Stats().Current.Subchannels
		if len(inside) != 1 || len(inside[0].Connections) != 1 || inside[0].Connections[0].InFlight != 1 {
			t.Errorf("inside: %+v, want one connection with one stream", inside)
		}
		s.CloseSend()
		s.Recv()
	})
}
