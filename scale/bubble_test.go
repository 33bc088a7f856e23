package scale_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/test/bufconn"
)

// inMemory is a network for a synctest bubble: a listener, and how to dial it.
type inMemory struct {
	*bufconn.Listener

	dials    atomic.Int64  // begun
	dialTime time.Duration // set before use
	refuse   atomic.Bool   // dials fail
}

func newInMemory() *inMemory { return &inMemory{Listener: bufconn.Listen(256 << 10)} }

func (n *inMemory) dial(ctx context.Context, _ string) (net.Conn, error) {
	n.dials.Add(1)
	if n.dialTime > 0 {
		time.Sleep(n.dialTime) // virtual
	}
	if n.refuse.Load() {
		return nil, &net.OpError{Op: "dial", Net: "memory", Err: net.ErrClosed}
	}
	return n.DialContext(ctx)
}

// channel makes a channel on the network.
func (n *inMemory) channel(tb testing.TB, opts ...grpc.DialOption) *channel {
	tb.Helper()
	return newChannel(tb, "passthrough:///memory", append([]grpc.DialOption{grpc.WithContextDialer(n.dial)}, opts...)...)
}

// callers keeps n calls going until stop.
func callers(tb testing.TB, stub testpb.TestServiceClient, n int) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := stub.EmptyCall(ctx, &testpb.Empty{}); err != nil {
					time.Sleep(10 * time.Millisecond) // or the bubble's clock would stand still
				}
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// elapse lets d pass in the bubble and everything come to rest.
func elapse(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// afterAProbe returns in the bubble when a probe of the only subchannel has just
// ended, so that the next one is far off.
func (c *channel) afterAProbe() {
	probes := func() uint64 { return c.observer.Snapshot().Subchannels[0].Probes }
	for before := probes(); probes() == before; {
		elapse(time.Millisecond)
	}
}

// quickly makes gRPC try failed dials again soon.
var quickly = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1, MaxDelay: 10 * time.Millisecond},
	MinConnectTimeout: time.Second,
}
