package shared_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/shared"
)

// sockets counts what a dialer has opened and what of it was closed.
type sockets struct {
	opened, closed atomic.Int64
}

func (s *sockets) dialer(dial func(context.Context, string) (net.Conn, error), takes time.Duration) grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		conn, err := dial(ctx, address)
		if err != nil {
			return nil, err
		}
		s.opened.Add(1)
		return &countedSocket{Conn: conn, closed: sync.OnceFunc(func() { s.closed.Add(1) })}, nil
	})
}

type countedSocket struct {
	net.Conn

	closed func()
}

func (c *countedSocket) Close() error {
	c.closed()
	return c.Conn.Close()
}

// Row 20 of the fault matrix: the dial goes on, the next caller uses it, and no
// socket is left when the pool is closed.
func TestACallerThatLeavesDuringTheDialLeavesNoSocketBehind(t *testing.T) {
	for name, closeEarly := range map[string]bool{"the next caller comes": false, "the pool is closed": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, counted := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory()), new(sockets)
				f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(),
					grpcpool.WithDialOptions(counted.dialer(server.Dial, 2*time.Second)))
				if err != nil {
					t.Fatal(err)
				}
				p := newPool(t, f, 0)
				var leaving sync.WaitGroup
				for i := range 10 {
					leaving.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+1)*100*time.Millisecond)
						defer cancel()
						if _, err := p.Get(ctx); !errors.Is(err, context.DeadlineExceeded) || status.Code(err) != codes.DeadlineExceeded {
							t.Errorf("a caller that left got %v", err)
						}
					})
				}
				leaving.Wait()
				want := int64(0)
				if !closeEarly {
					want = 1
					begun := time.Now()
					borrow(t, p)
					if took := time.Since(begun); took != time.Second {
						t.Errorf("the next caller waited %v, want what was left of the dial, 1s", took)
					}
				}
				if err := p.Close(); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				if o, c := counted.opened.Load(), counted.closed.Load(); o != want || c != o {
					t.Errorf("%d sockets opened and %d closed, want %d of each", o, c, want)
				}
				if n := p.Stats().Dials; n != 1 {
					t.Errorf("%d dials, want 1", n)
				}
			})
		})
	}
}

// Row 19: whoever returns a lease, and however often, it counts once.
func TestALeaseReturnedFromManyGoroutinesCountsOnce(t *testing.T) {
	for name, opts := range map[string][]shared.Option{"plain": nil, "with leak detection": {shared.WithLeakDetection(time.Hour)}} {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, &fakeFactory{}, 0, opts...)
			kept := get(t, p)
			for range 100 {
				l := get(t, p)
				start := make(chan struct{})
				var returning sync.WaitGroup
				for range 8 {
					returning.Go(func() {
						<-start
						l.Return()
						l.Return()
						if l.Connection() != nil {
							t.Error("a returned lease has a connection")
						}
					})
				}
				close(start)
				returning.Wait()
				if n := p.Stats().Leases; n != 1 {
					t.Fatalf("%d leases out, want the one that is kept", n)
				}
			}
			if kept.Connection() == nil {
				t.Error("the lease that is kept has lost its connection")
			}
			kept.Return()
			if s := p.Stats(); s.Leases != 0 || s.Leaked != 0 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}
