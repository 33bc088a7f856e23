package grpcpooltest_test

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// linked makes a plain channel over a link, in the test's bubble.
func linked(t *testing.T) (*grpc.ClientConn, *grpcpooltest.Link, *grpcpooltest.Server) {
	t.Helper()
	server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
	link := grpcpooltest.NewLink(server.Dial)
	return newClient(t, server, link.DialOption()), link, server
}

// wantNoAnswer makes a call that finds its deadline.
func wantNoAnswer(t *testing.T, cc *grpc.ClientConn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := call(ctx, cc); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("the call ended with %v, want no answer", err)
	}
}

func TestWhatALinkHoldsUpArrivesWhenItHasHealed(t *testing.T) {
	for name, fault := range map[string]func(*grpcpooltest.Link){
		"blackhole":          (*grpcpooltest.Link).Blackhole,
		"hung":               (*grpcpooltest.Link).Hang,
		"nothing to it":      func(l *grpcpooltest.Link) { l.Drop(true, false) },
		"nothing comes back": func(l *grpcpooltest.Link) { l.Drop(false, true) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cc, link, server := linked(t)
				wantCall(t, cc)
				fault(link)
				wantNoAnswer(t, cc)
				done := make(chan error, 1)
				go func() { done <- call(t.Context(), cc) }()
				synctest.Wait()
				link.Heal()
				if err := <-done; err != nil {
					t.Errorf("the call that waited ended with %v", err)
				}
				if got := server.Counts(); got.Opened != 1 || link.Dials() != 1 {
					t.Errorf("%d connections of %d dials, want the one that there was", got.Opened, link.Dials())
				}
			})
		})
	}
}

func TestADialIntoABlackholeHangsAndADialToAHungServerDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		link := grpcpooltest.NewLink(server.Dial)
		dial := func() (time.Duration, error) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			begun := time.Now()
			conn, err := link.Dial(ctx, "")
			if err == nil {
				conn.Close()
			}
			return time.Since(begun), err
		}
		link.Blackhole()
		if took, err := dial(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("into a blackhole: %v after %v, want the end of its context", err, took)
		}
		time.AfterFunc(2*time.Second, link.Heal)
		if took, err := dial(); err != nil || took != 3*time.Second { // TCP tries at 1 and at 3 s
			t.Errorf("with a blackhole of 2 s: %v after %v, want success after 3 s", err, took)
		}
		link.Hang()
		if took, err := dial(); err != nil || took != 0 {
			t.Errorf("to a hung server: %v after %v, want success at once", err, took)
		}
		link.Refuse()
		if took, err := dial(); !errors.Is(err, syscall.ECONNREFUSED) || took != 0 {
			t.Errorf("a refused dial: %v after %v, want connection refused at once", err, took)
		}
		link.Heal()
		link.Delay(time.Second)
		if took, err := dial(); err != nil || took != 2*time.Second {
			t.Errorf("with a delay of a second each way: %v after %v, want success after 2 s", err, took)
		}
	})
}

func TestRefusedDialsLeaveConnectionsAloneAndResetCutsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cc, link, server := linked(t)
		wantCall(t, cc)
		link.Refuse()
		wantCall(t, cc)
		stream, err := testpb.NewTestServiceClient(cc).FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		link.Reset()
		if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("the stream on a connection that was reset ended with %v, want Unavailable", err)
		}
		if err := call(t.Context(), cc); status.Code(err) != codes.Unavailable {
			t.Errorf("a call while dials are refused ended with %v, want Unavailable", err)
		}
		link.Heal()
		wantCall(t, cc)
		if got := server.Counts().Opened; got != 2 {
			t.Errorf("%d connections, want 2", got)
		}
	})
}

func TestADelayIsKeptEachWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cc, link, _ := linked(t)
		wantCall(t, cc)
		for _, d := range []time.Duration{time.Second, 30 * time.Millisecond, 0} {
			link.Delay(d)
			begun := time.Now()
			wantCall(t, cc)
			if took := time.Since(begun); took != 2*d {
				t.Errorf("with a delay of %v a call took %v, want %v", d, took, 2*d)
			}
			time.Sleep(time.Minute) // what the call leaves behind has arrived: what follows cannot overtake it
		}
	})
}

func TestALinkWithoutAWayRefusesToDial(t *testing.T) {
	if _, err := grpcpooltest.NewLink(nil).Dial(t.Context(), ""); err == nil {
		t.Error("a dial over a link that leads nowhere succeeded")
	}
}

func TestALinkWorksOnLoopbackToo(t *testing.T) {
	server := grpcpooltest.NewServer(t, grpcpooltest.WithMutualTLS())
	link := grpcpooltest.NewLink(server.Dial)
	cc := newClient(t, server, link.DialOption())
	wantCall(t, cc)
	link.Hang()
	done := make(chan error, 1)
	go func() { done <- call(t.Context(), cc) }()
	select {
	case err := <-done:
		t.Errorf("a call to a hung server ended with %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	link.Heal()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
