package shared_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/shared"
)

// Each attempt dials a channel of its own; what they learn of the server is shared.
func TestAPoolReachesAServerThatHasBecomeFar(t *testing.T) {
	for _, far := range []time.Duration{2 * time.Second, 5 * time.Second} {
		t.Run(far.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
				var delay atomic.Int64 // of a dial, in nanoseconds
				f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), grpcpool.WithDialOptions(
					grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
						timer := time.NewTimer(time.Duration(delay.Load()))
						defer timer.Stop()
						select {
						case <-timer.C:
							return server.Dial(ctx, addr)
						case <-ctx.Done():
							return nil, ctx.Err()
						}
					})))
				if err != nil {
					t.Fatal(err)
				}
				p := newPool(t, f, 500*time.Millisecond, shared.WithWaitForReady())
				borrow(t, p)
				time.Sleep(2 * time.Second) // virtual: it is closed when idle
				delay.Store(int64(far))
				ctx, cancel := context.WithTimeout(t.Context(), 11*time.Second+3*far) // ten seconds may be a brief outage
				defer cancel()
				lease, err := p.Get(ctx)
				if err != nil {
					t.Fatalf("a server %v away is not reached: %v", far, err)
				}
				lease.Return()
			})
		})
	}
}
