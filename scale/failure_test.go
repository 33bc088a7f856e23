package scale_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// wires is a dialer that keeps what it dialled, to be cut.
type wires struct {
	mu     sync.Mutex // guards conns
	conns  []net.Conn
	refuse atomic.Bool
}

func (w *wires) option() grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		if w.refuse.Load() {
			return nil, errors.New("refused by the test")
		}
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.conns = append(w.conns, c)
		}
		return c, err
	})
}

// cut closes the nth connection that was dialled.
func (w *wires) cut(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.conns[n].Close()
}

// cutOldest closes the connection that speaks for c's only subchannel. It need not
// be the one that was dialled first.
func (w *wires) cutOldest(tb testing.TB, c *channel) {
	tb.Helper()
	oldest := c.observer.Snapshot().Subchannels[0].Connections[0].Local
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range w.conns {
		if conn.LocalAddr().String() == oldest {
			_ = conn.Close()
			return
		}
	}
	tb.Fatalf("no connection from %s was dialled", oldest)
}

func (w *wires) dialled() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.conns)
}

func TestGoAwaysFailNoCall(t *testing.T) {
	for name, graceful := range map[string]bool{"graceful": true, "final": false} {
		t.Run(name, func(t *testing.T) {
			s := startStrict(t, h2test.WithLimit(10), h2test.WithDelay(5*time.Millisecond), h2test.WithGrace(10*time.Millisecond))
			c := newChannel(t, s.Addr().String(), scale.WithMaxConnections(3))
			for range 10 { // one by one: gRPC retries a call that the server has not seen, but once only
				before, done := s.Counts().Calls, make(chan []error, 1)
				go func() { done <- hammer(testContext(t), c.stub, 50, 5) }()
				eventually(t, "100 calls more", func() bool { return s.Counts().Calls >= before+100 })
				s.GoAway(graceful)
				if errs := <-done; len(errs) > 0 {
					t.Errorf("%d of 250 calls failed, first: %v", len(errs), errs[0])
				}
			}
			if got := s.Counts(); got.Violations > 0 {
				t.Errorf("the server saw %+v", got)
			}
			c.settled(t)
		})
	}
}

func TestALostConnectionTakesOnlyItsOwnCallsWithIt(t *testing.T) {
	gate := make(chan struct{})
	s := startServer(t, serverConfig{limit: 2, gate: gate})
	w := new(wires)
	c := newChannel(t, s.addr, w.option(), scale.WithMaxConnections(3))
	ctx := testContext(t)
	errs := make(chan error, 8)
	for range 8 {
		go func() {
			_, err := c.stub.EmptyCall(ctx, &testpb.Empty{})
			errs <- err
		}()
	}
	eventually(t, "6 calls run on 3 connections and 2 wait", func() bool { return s.calls.Load() == 6 && c.waiters() == 2 })
	w.cutOldest(t, c)
	for range 2 {
		if err := <-errs; status.Code(err) != codes.Unavailable {
			t.Errorf("the error of a call on the lost connection is %v, want UNAVAILABLE", err)
		}
	}
	eventually(t, "the two that waited run on a new connection", func() bool { return s.calls.Load() == 8 })
	close(gate)
	for range 6 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := w.dialled(); got != 4 {
		t.Errorf("%d dials, want 4", got)
	}
	sub := c.observer.Snapshot().Subchannels[0]
	if sub.Lost != 1 || sub.State != connectivity.Ready || !strings.HasPrefix(sub.LastError, "scale: connection to "+s.addr) {
		t.Errorf("the snapshot is %+v", sub)
	}
	c.settled(t)
}

func TestFailFastCallsFailWithTheDialErrorAndOthersWait(t *testing.T) {
	s := startServer(t, serverConfig{})
	w := new(wires)
	w.refuse.Store(true)
	c := newChannel(t, s.addr, w.option())
	_, err := c.stub.EmptyCall(testContext(t), &testpb.Empty{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "refused by the test") {
		t.Errorf("the error is %v, want UNAVAILABLE with the dial's error", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.stub.EmptyCall(testContext(t), &testpb.Empty{}, grpc.WaitForReady(true))
		done <- err
	}()
	w.refuse.Store(false)
	if err := <-done; err != nil {
		t.Errorf("a call that waits for READY: %v", err)
	}
}

func TestAServerThatRestartsIsFoundAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	s := startServer(t, serverConfig{listener: l, limit: 5, delay: time.Millisecond})
	c := newChannel(t, addr, scale.WithMaxConnections(3), grpc.WithConnectParams(quickly))
	ctx, stop := context.WithCancel(testContext(t))
	var wg sync.WaitGroup
	var ok atomic.Int64
	for range 40 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := c.stub.EmptyCall(ctx, &testpb.Empty{}, grpc.WaitForReady(true)); err == nil {
					ok.Add(1)
				}
			}
		})
	}
	for i := range 4 {
		served := ok.Load()
		eventually(t, "calls are served", func() bool { return ok.Load() > served+500 })
		if i%2 == 0 {
			s.GracefulStop()
		} else {
			s.Stop()
		}
		eventually(t, "the port is free", func() bool {
			l, err = net.Listen("tcp", addr)
			return err == nil
		})
		s = startServer(t, serverConfig{listener: l, limit: 5, delay: time.Millisecond})
	}
	served := ok.Load()
	eventually(t, "calls are served in the end", func() bool { return ok.Load() > served+500 })
	stop()
	wg.Wait()
	c.settled(t)
}

func TestAChannelGoesIdleAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, s := strictInMemory(t, h2test.WithLimit(5), h2test.WithDelay(time.Millisecond))
		c := network.channel(t, grpc.WithIdleTimeout(10*time.Second))
		for range 5 {
			mustHammer(t, c.stub, 40, 5)
			c.settled(t)
			elapse(30 * time.Second)
			if got := c.GetState(); got != connectivity.Idle {
				t.Fatalf("the state is %v, want IDLE", got)
			}
			if n := s.Counts().Open; n != 0 {
				t.Fatalf("%d connections are open, want none", n)
			}
			if got := c.observer.Snapshot(); len(got.Subchannels) > 0 {
				t.Fatalf("an idle channel shows %+v", got)
			}
		}
		c.Connect()
		elapse(time.Second)
		if got := c.GetState(); got != connectivity.Ready {
			t.Errorf("after Connect the state is %v, want READY", got)
		}
	})
}
