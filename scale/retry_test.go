package scale_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// After a long outage gRPC's backoff has grown to two minutes; who knows that the
// network is back need not sit it out. With pick_first and with round_robin.
func TestRetryNowEndsABackoff(t *testing.T) {
	for _, child := range []string{"pick_first", "round_robin"} {
		t.Run(child, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network, _ := strictInMemory(t, h2test.WithLimit(10))
				c := network.channel(t, scale.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"`+child+`":{}}]}`))
				network.refuse.Store(true)
				done := make(chan time.Time)
				go func() {
					if _, err := c.stub.EmptyCall(t.Context(), &testpb.Empty{}, grpc.WaitForReady(true)); err != nil {
						t.Error(err)
					}
					done <- time.Now()
				}()
				elapse(10 * time.Minute)
				network.refuse.Store(false)
				back := time.Now()
				c.observer.RetryNow()
				if took := (<-done).Sub(back); took > 0 {
					t.Errorf("the call went through %v after the retry, want at once", took)
				}
			})
		})
	}
}

func TestRetryNowLeavesAChannelThatIsUpAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		new(scale.Observer).RetryNow() // of no channel at all
		network, s := strictInMemory(t, h2test.WithLimit(10))
		c := network.channel(t)
		mustHammer(t, c.stub, 1, 1)
		c.observer.RetryNow()
		mustHammer(t, c.stub, 1, 1)
		if n := s.Counts().Connections; n != 1 {
			t.Errorf("%d connections, want 1", n)
		}
	})
}

// A server that ends every connection at once is dialled ever more seldom. That too is a
// pause that need not be sat out.
func TestRetryNowEndsAHold(t *testing.T) {
	for _, child := range []string{"pick_first", "round_robin"} {
		t.Run(child, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network, s := strictInMemory(t, h2test.WithFault(h2test.CloseAtOnce))
				c := network.channel(t, scale.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"`+child+`":{}}]}`))
				stop := callers(t, c.stub, 3)
				elapse(30 * time.Second)
				stop()
				s.SetFault(h2test.NoFault)
				c.observer.RetryNow()
				begun := time.Now()
				if _, err := c.stub.EmptyCall(t.Context(), &testpb.Empty{}, grpc.WaitForReady(true)); err != nil || time.Since(begun) > 0 {
					t.Errorf("the call went through %v after the retry, want at once: %v", time.Since(begun), err)
				}
			})
		})
	}
}
