package h2test_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
)

// inMemory starts a server and a channel to it in the test's bubble.
func inMemory(t *testing.T, opts ...h2test.Option) (*h2test.Server, *grpc.ClientConn) {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	srv := h2test.Start(l, opts...)
	t.Cleanup(srv.Close)
	cc, err := grpc.NewClient("passthrough:///bufconn",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return srv, cc
}

func TestTheDelayIsKeptToTheNanosecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, cc := inMemory(t, h2test.WithDelay(time.Second))
		for _, d := range []time.Duration{time.Second, time.Hour, 0} {
			srv.SetDelay(d)
			begun := time.Now()
			if err := call(t.Context(), cc); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begun); took != d {
				t.Errorf("took %v, want %v", took, d)
			}
		}
	})
}

func TestAGracefulEndWaitsForItsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, cc := inMemory(t, h2test.WithDelay(time.Minute), h2test.WithGrace(5*time.Second))
		done := make(chan error)
		go func() { done <- call(t.Context(), cc) }()
		synctest.Wait()
		srv.GoAway(true)
		time.Sleep(6 * time.Second) // both GOAWAYs are out
		synctest.Wait()
		go func() { done <- call(t.Context(), cc) }()
		synctest.Wait()
		if got := srv.Counts(); got.Connections != 2 || got.Open != 2 || got.Calls != 2 {
			t.Errorf("while the first call runs: %+v", got)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := srv.Counts(); got.Open != 1 {
			t.Errorf("when it is done: %+v", got)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, cc := inMemory(t, h2test.WithDelay(time.Hour))
		done := make(chan error)
		go func() { done <- call(t.Context(), cc) }()
		synctest.Wait()
		srv.Close()
		srv.GoAway(true) // too late to do anything
		if err := <-done; status.Code(err) != codes.Unavailable {
			t.Errorf("call: %v, want Unavailable", err)
		}
		if got := srv.Counts(); got.Open != 0 {
			t.Errorf("counts %+v", got)
		}
	})
}

func TestASilentServerIsNeverReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, cc := inMemory(t, h2test.WithFault(h2test.Silent))
		begun := time.Now()
		cc.Connect()
		for state := cc.GetState(); state != connectivity.TransientFailure; state = cc.GetState() {
			if state == connectivity.Ready {
				t.Fatal("READY without SETTINGS")
			}
			cc.WaitForStateChange(t.Context(), state)
		}
		if took := time.Since(begun); took != 20*time.Second { // grpc-go's own patience
			t.Errorf("gave up after %v", took)
		}
		srv.SetFault(h2test.NoFault)
		if err := call(t.Context(), cc, grpc.WaitForReady(true)); err != nil {
			t.Errorf("after the server has come to: %v", err)
		}
	})
}

func TestAServerThatLeavesAtOnceIsUsableWhenItHasComeTo(t *testing.T) {
	for _, fault := range []h2test.Fault{h2test.CloseAtOnce, h2test.GoAwayAtOnce} {
		t.Run(fault.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv, cc := inMemory(t, h2test.WithFault(fault))
				for srv.Counts().Connections < 5 {
					cc.Connect()
					time.Sleep(time.Minute) // time for the connection to end, and for any backoff
				}
				srv.SetFault(h2test.NoFault)
				if err := call(t.Context(), cc, grpc.WaitForReady(true)); err != nil {
					t.Error(err)
				}
				if got := srv.Counts(); got.Calls != 1 {
					t.Errorf("counts %+v", got)
				}
			})
		})
	}
}
