package shared_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/shared"
)

// hostileInMemory makes a pool over a hostile server in the test's bubble.
func hostileInMemory(t *testing.T, opts ...h2test.Option) (*shared.Pool, *h2test.Server) {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	srv := h2test.Start(l, opts...)
	t.Cleanup(srv.Close)
	f, err := grpcpool.NewFactory("passthrough:///memory", insecure.NewCredentials(), grpcpool.WithPing(anyAnswer), grpcpool.WithDialOptions(
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) })))
	if err != nil {
		t.Fatal(err)
	}
	return newPool(t, f, 0), srv
}

// hostileOnLoopback does so on a real socket.
func hostileOnLoopback(t *testing.T, opts ...h2test.Option) (*shared.Pool, *h2test.Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := h2test.Start(l, opts...)
	t.Cleanup(srv.Close)
	f, err := grpcpool.NewFactory(l.Addr().String(), insecure.NewCredentials(), grpcpool.WithPing(anyAnswer))
	if err != nil {
		t.Fatal(err)
	}
	return newPool(t, f, 0), srv
}

// anyAnswer is a ping for h2test.Server, whose answers are empty messages, not a health status.
func anyAnswer(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
	begun := time.Now()
	_, err := testpb.NewTestServiceClient(conn).EmptyCall(ctx, &testpb.Empty{})
	return time.Since(begun), err
}

// try borrows and makes a call, and returns what went wrong.
func try(ctx context.Context, p *shared.Pool) error {
	l, err := p.Get(ctx)
	if err != nil {
		return err
	}
	defer l.Return()
	_, err = testpb.NewTestServiceClient(l.Connection()).EmptyCall(ctx, &testpb.Empty{})
	return err
}

// tryUntilServed makes calls, each of which waits until the pool is ready, until one is
// served; and then borrows and makes a call.
func tryUntilServed(t *testing.T, p *shared.Pool, atMost time.Duration) error {
	t.Helper()
	client, err := testpb.NewTestServiceClient(p), errors.New("not tried")
	for begun := time.Now(); err != nil && time.Since(begun) < atMost; {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if _, err = client.EmptyCall(ctx, &testpb.Empty{}, grpc.WaitForReady(true)); err == nil {
			err = try(ctx, p)
		}
		cancel()
		if err != nil {
			time.Sleep(5 * time.Millisecond) // a caller's pace: virtual time stands still for one who is told at once
		}
	}
	return err
}

// mostBeside is when package scale dials beside a handshake that a server does not finish,
// at the latest. A plain channel waits for 20 s.
const mostBeside = 12600 * time.Millisecond

// Row 10 of the fault matrix.
func TestAServerThatNeverSendsSettingsFailsAGetInTime(t *testing.T) {
	isTold := func(t *testing.T, p *shared.Pool) {
		begun := time.Now()
		_, err := p.Get(t.Context())
		took := time.Since(begun)
		if took > 3*time.Second || !errors.Is(err, grpcpool.ErrConnectionNotOK) || !strings.Contains(err.Error(), "SETTINGS") {
			t.Errorf("Get ended after %v: %v", took, err)
		}
	}
	t.Run("virtual", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p, srv := hostileInMemory(t, h2test.WithFault(h2test.Silent))
			isTold(t, p)
			srv.SetFault(h2test.NoFault)
			begun := time.Now()
			if err := tryUntilServed(t, p, 20*time.Second); err != nil {
				t.Error(err)
			}
			if took := time.Since(begun); took > mostBeside-2*time.Second {
				t.Errorf("the server had come to for %v before a call was served", took)
			}
		})
	})
	t.Run("real", func(t *testing.T) {
		p, _ := hostileOnLoopback(t, h2test.WithFault(h2test.Silent))
		isTold(t, p)
	})
}

// Row 11: connect then close, or GOAWAY at once, in a loop.
func TestAServerThatLeavesAtOnceIsNotDialledInALoop(t *testing.T) {
	run := func(t *testing.T, p *shared.Pool, srv *h2test.Server) {
		var callers sync.WaitGroup
		end := time.Now().Add(3 * time.Second)
		for range 10 {
			callers.Go(func() {
				for time.Now().Before(end) {
					if err := try(t.Context(), p); err != nil && status.Code(err) != codes.Unavailable {
						t.Errorf("an error of code %v: %v", status.Code(err), err)
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
		callers.Wait()
		// The pool tries at most five times in 3 s; the first channel dials again at
		// once, as one connection that is sent away may be a matter of chance.
		if n := srv.Counts().Connections; n > 5 {
			t.Errorf("%d connections in 3 s, want 5 at most", n)
		}
	}
	for _, fault := range []h2test.Fault{h2test.CloseAtOnce, h2test.GoAwayAtOnce} {
		t.Run(fault.String()+", virtual", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, srv := hostileInMemory(t, h2test.WithFault(fault))
				run(t, p, srv)
			})
		})
		t.Run(fault.String()+", real", func(t *testing.T) {
			t.Parallel() // it mostly sleeps
			p, srv := hostileOnLoopback(t, h2test.WithFault(fault))
			run(t, p, srv)
		})
	}
}

// Row 13: a limit of 0 from the start, and one that is lowered while in use.
func TestALimitOfZeroIsATypedErrorAndHealsWhenRaised(t *testing.T) {
	for name, lowered := range map[string]bool{"from the start": false, "lowered": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limit := 0
				if lowered {
					limit = 10
				}
				p, srv := hostileInMemory(t, h2test.WithLimit(limit))
				if lowered {
					if err := try(t.Context(), p); err != nil {
						t.Fatal(err)
					}
					srv.SetLimit(0)
					time.Sleep(time.Second)
				}
				for range 3 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					begun := time.Now()
					err := try(ctx, p)
					cancel()
					code := status.Code(err)
					if took := time.Since(begun); took > time.Second || code != codes.DeadlineExceeded && code != codes.Unavailable {
						t.Errorf("ended after %v: %v", took, err)
					}
					t.Log(err)
				}
				if n := srv.Counts().Connections; n > 5 {
					t.Errorf("%d connections", n)
				}
				srv.SetLimit(10)
				begun := time.Now()
				err := errors.New("not tried")
				for err != nil && time.Since(begun) < time.Minute {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					if err = try(ctx, p); err != nil {
						time.Sleep(10 * time.Millisecond)
					}
					cancel()
				}
				if took := time.Since(begun); took > time.Second {
					t.Errorf("a call was served %v after the limit was raised", took)
				}
			})
		})
	}
}

// Row 23: whatever a server does, a caller gets an error in time, memory and dials
// are bounded, and when the server has come to, calls are served. What needs no
// socket is met in virtual time.
func TestAHostileServerHarmsNoCallerForLong(t *testing.T) {
	for _, fault := range h2test.Faults() {
		t.Run(fault.String(), func(t *testing.T) {
			if fault.NeedsSocket() {
				p, srv := hostileOnLoopback(t, h2test.WithFault(fault))
				besiege(t, p, srv, fault, 750*time.Millisecond)
				return
			}
			synctest.Test(t, func(t *testing.T) {
				p, srv := hostileInMemory(t, h2test.WithFault(fault))
				besiege(t, p, srv, fault, 1500*time.Millisecond)
			})
		})
	}
}

// besiege has many callers use p for d while srv misbehaves, and then waits until they
// are served.
func besiege(t *testing.T, p *shared.Pool, srv *h2test.Server, fault h2test.Fault, d time.Duration) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var callers sync.WaitGroup
	end := time.Now().Add(d)
	for range 10 {
		callers.Go(func() {
			for time.Now().Before(end) {
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				_ = try(ctx, p)
				cancel()
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	callers.Wait()
	runtime.ReadMemStats(&after)
	if late := time.Since(end); late > time.Second {
		t.Errorf("a call ended %v late", late)
	}
	dials, heap := srv.Counts().Connections, (int64(after.HeapAlloc)-int64(before.HeapAlloc))>>20
	t.Logf("%d connections, %d MiB more heap, last error: %v", dials, heap, p.Stats().LastError)
	if dials > 5 || heap > 64 {
		t.Errorf("%d connections and %d MiB more heap in %v", dials, heap, d)
	}
	srv.SetFault(h2test.NoFault)
	if fault == h2test.PushPromise || fault == h2test.HugeHeaders {
		srv.GoAway(false) // such a connection answers, in its way, and may be kept
	}
	healed := time.Now()
	atMost := 4 * time.Second
	if raceDetector && fault.NeedsSocket() { // it reads what a flood has left many times slower
		atMost = 15 * time.Second
	}
	if fault == h2test.Silent { // it may be busy, and the dial keeps its place
		atMost = mostBeside - d
	}
	err := tryUntilServed(t, p, 2*atMost)
	if took := time.Since(healed); took > atMost {
		t.Errorf("a call was served %v after the server came to, last: %v", took, err)
	}
}
