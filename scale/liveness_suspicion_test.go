package scale_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// gRPC makes a call that the server has not begun once more, and not twice.
func TestNoCallFailsWhenAServerEndsAllItsConnectionsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, s := strictInMemory(t, h2test.WithLimit(4), h2test.WithDelay(time.Millisecond))
		// On every other connection the server's word takes a millisecond longer.
		near, far := grpcpooltest.NewLink(network.dial), grpcpooltest.NewLink(network.dial)
		near.Delay(time.Millisecond)
		far.Delay(2 * time.Millisecond)
		var dials atomic.Int64
		dial := func(ctx context.Context, addr string) (net.Conn, error) {
			if dials.Add(1)%2 == 0 {
				return far.Dial(ctx, addr)
			}
			return near.Dial(ctx, addr)
		}
		c := newChannel(t, "passthrough:///memory", grpc.WithContextDialer(dial), scale.WithMaxConnections(4))
		for i := range 40 {
			done := make(chan []error)
			go func() { done <- hammer(t.Context(), c.stub, 16, 20) }()
			elapse(30*time.Millisecond + time.Duration(i)*100*time.Microsecond) // the connections stand
			s.GoAway(false)
			for _, err := range <-done {
				t.Errorf("a call failed: %v", err)
			}
			elapse(time.Second)
		}
	})
}
