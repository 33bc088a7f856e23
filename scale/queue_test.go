package scale_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// queueCalls starts calls one after the other, each when the one before it waits,
// and returns their errors as they end.
func queueCalls(ctx context.Context, tb testing.TB, c *channel, n int) <-chan error {
	tb.Helper()
	errs := make(chan error, n)
	before := c.waiters()
	for i := range n {
		go func() {
			ctx := metadata.AppendToOutgoingContext(ctx, "x-order", strconv.Itoa(i))
			_, err := c.stub.EmptyCall(ctx, &testpb.Empty{})
			errs <- err
		}()
		eventually(tb, fmt.Sprintf("call %d waits", i), func() bool { return c.waiters() == before+i+1 })
	}
	return errs
}

func TestCallsAreServedInTheOrderInWhichTheyCame(t *testing.T) {
	var mu sync.Mutex
	var order []string
	s := startStrict(t, h2test.WithLimit(0), h2test.WithDelay(time.Millisecond), h2test.WithOnCall(func(info h2test.CallInfo) {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, info.Order)
	}))
	c := newChannel(t, s.Addr().String(), scale.WithMaxConnections(1))
	errs := queueCalls(testContext(t), t, c, 30)
	s.SetLimit(1)
	for range 30 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	for i, got := range order {
		if got != strconv.Itoa(i) {
			t.Fatalf("the calls were served in the order %v", order)
		}
	}
}

func TestACallPastItsDeadlineSaysWhatItWaitedFor(t *testing.T) {
	gate := make(chan struct{})
	s := startServer(t, serverConfig{limit: 1, gate: gate})
	var dials atomic.Int64
	c := newChannel(t, s.addr, scale.WithMaxConnections(2), grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		if dials.Add(1) > 1 {
			return nil, errors.New("no route to anywhere")
		}
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}))
	ctx := testContext(t)
	running := hold(ctx, t, s, c.stub, 1)
	waiting := queueCalls(ctx, t, c, 2)
	eventually(t, "the second dial failed", func() bool { return c.observer.Snapshot().Subchannels[0].Failed == 1 })

	short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	_, err := c.stub.EmptyCall(short, &testpb.Empty{})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("the code is %v, want DEADLINE_EXCEEDED", status.Code(err))
	}
	for _, want := range []string{
		"scale: ", "context deadline exceeded after waiting", s.addr, "limit 1 per connection",
		"1 of at most 2 connections", "3 calls waiting", "no route to anywhere",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	close(gate)
	running.Wait()
	for range 2 {
		if err := <-waiting; err != nil {
			t.Error(err)
		}
	}
	if n := dials.Load(); n != 2 {
		t.Errorf("%d dials within the backoff of the one that failed, want 2", n)
	}
}

func TestAWaiterThatCancelsGivesItsPlaceUp(t *testing.T) {
	gate := make(chan struct{})
	s := startServer(t, serverConfig{limit: 1, gate: gate})
	c := newChannel(t, s.addr, scale.WithMaxConnections(1))
	ctx := testContext(t)
	running := hold(ctx, t, s, c.stub, 1)
	cancelled, cancel := context.WithCancel(ctx)
	first := queueCalls(cancelled, t, c, 3)
	last := queueCalls(ctx, t, c, 1)
	cancel()
	for range 3 {
		if err := <-first; status.Code(err) != codes.Canceled || !strings.Contains(err.Error(), "scale: context canceled after waiting") {
			t.Errorf("the error is %v, want CANCELED", err)
		}
	}
	close(gate)
	running.Wait()
	if err := <-last; err != nil {
		t.Error(err)
	}
	c.settled(t)
	if n := s.calls.Load(); n != 2 {
		t.Errorf("the server had %d calls, want 2", n)
	}
}

func TestClosingTheChannelEndsCallsThatWait(t *testing.T) {
	s := startServer(t, serverConfig{limit: 1, gate: make(chan struct{})})
	c := newChannel(t, s.addr, scale.WithMaxConnections(1))
	var running sync.WaitGroup
	running.Go(func() { _, _ = c.stub.EmptyCall(context.Background(), &testpb.Empty{}) })
	eventually(t, "the server has the call", func() bool { return s.calls.Load() == 1 })
	waiting := queueCalls(context.Background(), t, c, 10)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := <-waiting; status.Code(err) != codes.Canceled {
			t.Errorf("the error is %v, want CANCELED", err)
		}
	}
	running.Wait()
	if got := c.observer.Snapshot(); len(got.Subchannels) > 0 {
		t.Errorf("a closed channel shows %+v", got)
	}
}

func TestClosingTheChannelWhileItGrowsLeavesNothingBehind(t *testing.T) {
	for range 20 {
		s := startServer(t, serverConfig{limit: 1, delay: time.Millisecond})
		cc := newChannel(t, s.addr, scale.WithMaxConnections(20))
		var wg sync.WaitGroup
		for range 30 {
			wg.Go(func() {
				for {
					if _, err := cc.stub.EmptyCall(context.Background(), &testpb.Empty{}); err != nil {
						return
					}
				}
			})
		}
		eventually(t, "it grows", func() bool { return s.accepted.Load() > 1 })
		_ = cc.Close()
		wg.Wait()
		s.Stop()
	}
	// TestMain looks for goroutines.
}

func TestCallsThatWaitGoElsewhereWhenTheirAddressIsTakenAway(t *testing.T) {
	gate := make(chan struct{})
	full := startServer(t, serverConfig{limit: 1, gate: gate})
	other := startServer(t, serverConfig{})
	r := manual.NewBuilderWithScheme("moving")
	r.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: full.addr}}})
	c := newChannel(t, "moving:///x", grpc.WithResolvers(r), scale.WithMaxConnections(1))
	ctx := testContext(t)
	running := hold(ctx, t, full, c.stub, 1)
	waiting := queueCalls(ctx, t, c, 5)
	r.UpdateState(resolver.State{Addresses: []resolver.Address{{Addr: other.addr}}})
	for range 5 {
		if err := <-waiting; err != nil {
			t.Error(err)
		}
	}
	if n := other.calls.Load(); n != 5 {
		t.Errorf("the other server had %d calls, want 5", n)
	}
	close(gate)
	running.Wait() // it was left alone, and its end is no business of the new address
	c.settled(t)
}
