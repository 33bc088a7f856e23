package scale_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// startStrict runs a strict HTTP/2 server until the test ends.
func startStrict(tb testing.TB, opts ...h2test.Option) *h2test.Server {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := h2test.Start(l, opts...)
	tb.Cleanup(s.Close)
	return s
}

// limits are those that the READY connections know of.
func (c *channel) limits() (limits []uint32) {
	for _, s := range c.observer.Snapshot().Subchannels {
		for _, conn := range s.Connections {
			limits = append(limits, conn.Limit)
		}
	}
	return limits
}

func TestNoStreamExceedsTheLimitThatIsInForce(t *testing.T) {
	s := startStrict(t, h2test.WithLimit(5), h2test.WithDelay(3*time.Millisecond))
	c := newChannel(t, s.Addr().String(), scale.WithMaxConnections(3))
	mustHammer(t, c.stub, 1, 1)
	for _, limit := range []int{5, 20, 2, 0, 8} {
		// Callers are at work while the limit changes.
		ctx, stop := context.WithCancel(testContext(t))
		var errs []error
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				errs = append(errs, hammer(ctx, c.stub, 60, 5)...)
			}
		}()
		s.SetLimit(limit)
		eventually(t, "the connections know the limit", func() bool {
			for _, l := range c.limits() {
				if l != uint32(limit) {
					return false
				}
			}
			return true
		})
		calls := s.Counts().Calls
		if limit > 0 {
			eventually(t, "200 calls are served under the limit", func() bool { return s.Counts().Calls >= calls+200 })
		}
		stop()
		<-done
		for _, err := range errs {
			if status.Code(err) != codes.Canceled {
				t.Fatalf("limit %d: %v", limit, err)
			}
		}
		if n := s.Counts().Violations; n > 0 {
			t.Fatalf("limit %d: %d streams beyond the limit in force", limit, n)
		}
	}
	mustHammer(t, c.stub, 60, 5)
	c.settled(t)
	if n := s.Counts().Connections; n > 3 {
		t.Errorf("%d connections, want 3 at most", n)
	}
}

func TestALimitOfOneIsEnough(t *testing.T) {
	s := startStrict(t, h2test.WithLimit(1), h2test.WithDelay(time.Millisecond))
	c := newChannel(t, s.Addr().String(), scale.WithMaxConnections(4))
	mustHammer(t, c.stub, 50, 20)
	c.settled(t)
	if got := s.Counts(); got.Violations > 0 || got.MaxStreams != 1 || got.Connections != 4 {
		t.Errorf("the server saw %+v, want 4 connections, 1 stream each and no violations", got)
	}
}

func TestALimitOfZeroIsAnErrorWithoutADialStormAndHealsWhenRaised(t *testing.T) {
	s := startStrict(t, h2test.WithLimit(0))
	c := newChannel(t, s.Addr().String())
	ctx, cancel := context.WithTimeout(testContext(t), 100*time.Millisecond)
	defer cancel()
	errs := hammer(ctx, c.stub, 50, 1)
	if len(errs) != 50 {
		t.Fatalf("%d of 50 calls failed, want all", len(errs))
	}
	for _, err := range errs {
		if status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "limit 0") {
			t.Fatalf("the error is %v, want DEADLINE_EXCEEDED for a limit of 0", err)
		}
	}
	if n := s.Counts().Connections; n != 1 {
		t.Errorf("%d connections to a server that allows no streams, want 1", n)
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.stub.EmptyCall(testContext(t), &testpb.Empty{})
		done <- err
	}()
	eventually(t, "a call waits", func() bool { return c.waiters() == 1 })
	s.SetLimit(1)
	if err := <-done; err != nil {
		t.Errorf("the call that waited for the limit to be raised: %v", err)
	}
}

func TestAServerWithoutALimitGetsAnotherConnectionForEvery128Streams(t *testing.T) {
	gate := make(chan struct{})
	s := startServer(t, serverConfig{gate: gate})
	c := newChannel(t, s.addr, scale.WithMaxConnections(2))
	ctx := testContext(t)
	first := hold(ctx, t, s, c.stub, 128)
	if got := c.connections(); got != 1 {
		t.Errorf("128 calls are on %d connections, want 1", got)
	}
	second := hold(ctx, t, s, c.stub, 1)
	eventually(t, "there is a second connection", func() bool { return c.connections() == 2 })
	// Nobody waits for a server that did not ask for it, even at the maximum.
	third := hold(ctx, t, s, c.stub, 300)
	if got := s.accepted.Load(); got != 2 {
		t.Errorf("the server accepted %d connections, want 2", got)
	}
	for _, conn := range c.observer.Snapshot().Subchannels[0].Connections {
		if conn.InFlight < 200 || conn.InFlight > 229 {
			t.Errorf("a connection has %d of 429 streams, want about half", conn.InFlight)
		}
		if conn.Limit != scale.Unlimited {
			t.Errorf("the limit is %d, want Unlimited", conn.Limit)
		}
	}
	close(gate)
	first.Wait()
	second.Wait()
	third.Wait()
	c.settled(t)
}

func TestMaxStreamsBoundsAConnectionBelowTheServersLimit(t *testing.T) {
	for name, limit := range map[string]int{"a limit": 100, "no limit": h2test.NoLimit} {
		t.Run(name, func(t *testing.T) {
			s := startStrict(t, h2test.WithLimit(limit), h2test.WithDelay(2*time.Millisecond))
			c := newChannel(t, s.Addr().String(), scale.WithMaxStreams(3), scale.WithMaxConnections(2))
			mustHammer(t, c.stub, 30, 10)
			if got := s.Counts(); got.MaxStreams != 3 || got.Connections != 2 {
				t.Errorf("the server saw %+v, want 3 streams on each of 2 connections", got)
			}
		})
	}
}

func TestMaxConnectionsOfOneNeverScales(t *testing.T) {
	s := startStrict(t, h2test.WithLimit(5), h2test.WithDelay(2*time.Millisecond))
	c := newChannel(t, s.Addr().String(), scale.WithMaxConnections(1))
	mustHammer(t, c.stub, 30, 10)
	if got := s.Counts(); got.MaxStreams != 5 || got.Connections != 1 || got.Violations > 0 {
		t.Errorf("the server saw %+v, want 1 connection with 5 streams", got)
	}
}

func TestQueueInTransportNeverWaitsInPick(t *testing.T) {
	s := startStrict(t, h2test.WithLimit(2), h2test.WithDelay(20*time.Millisecond))
	c := newChannel(t, s.Addr().String(), scale.WithQueueInTransport(), scale.WithMaxConnections(2))
	done := make(chan []error, 1)
	go func() { done <- hammer(testContext(t), c.stub, 30, 2) }()
	eventually(t, "more streams are picked than the server allows", func() bool { return c.inFlight() > 4 })
	if n := c.waiters(); n != 0 {
		t.Errorf("%d calls wait in the channel, want none", n)
	}
	if errs := <-done; len(errs) > 0 {
		t.Errorf("%d calls failed, first: %v", len(errs), errs[0])
	}
	if got := s.Counts(); got.Violations > 0 || got.Connections != 2 {
		t.Errorf("the server saw %+v, want 2 connections and no violations", got)
	}
}
