package shared_test

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/shared"
)

// slowHandshakes are credentials whose handshakes take as long as those of a busy server.
type slowHandshakes struct {
	credentials.TransportCredentials

	took time.Duration
	made *atomic.Int32
}

func (s slowHandshakes) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	s.made.Add(1)
	select {
	case <-time.After(s.took):
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	return s.TransportCredentials.ClientHandshake(ctx, authority, raw)
}

func (s slowHandshakes) Clone() credentials.TransportCredentials { return s }

// busy is a pool over a server whose handshakes take 8 s.
func busy(t *testing.T, opts ...shared.Option) (p *shared.Pool, handshakes *atomic.Int32) {
	t.Helper()
	server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
	handshakes = new(atomic.Int32)
	f, err := grpcpool.NewFactory(server.Target(), slowHandshakes{insecure.NewCredentials(), busyFor, handshakes},
		grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
	if err != nil {
		t.Fatal(err)
	}
	return newPool(t, f, 0, opts...), handshakes
}

const busyFor = 8 * time.Second

// Row 30 of the fault matrix: who gives a handshake up goes to the end of the queue. Callers
// who do not wait are told all the same, and those who come later at once.
func TestTheFirstDialKeepsItsPlaceWhileCallersAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, handshakes := busy(t)
		begun := time.Now()
		waited := make(chan error, 1)
		go func() {
			_, err := testpb.NewTestServiceClient(p).EmptyCall(t.Context(), &testpb.Empty{}, grpc.WaitForReady(true))
			waited <- err
		}()
		synctest.Wait()
		for _, within := range []time.Duration{3 * time.Second, 0, 0} {
			asked := time.Now()
			_, err := p.Get(t.Context())
			if took := time.Since(asked); took > within || status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "still waiting for it") {
				t.Errorf("Get was told after %v: %v", took, err)
			}
		}
		if s := p.Stats(); s.State != shared.StateConnecting || s.LastError == nil {
			t.Errorf("meanwhile: %s, %v", s.State, s.LastError)
		}
		if err := <-waited; err != nil || time.Since(begun) > busyFor+time.Second {
			t.Errorf("a call that waits ended after %v: %v", time.Since(begun), err)
		}
		borrow(t, p)
		synctest.Wait()
		if s := p.Stats(); handshakes.Load() != 1 || s.Dials != 1 || s.State != shared.StateReady {
			t.Errorf("%d handshakes, %d dials, %s, want 1, 1, ready", handshakes.Load(), s.Dials, s.State)
		}
	})
}

func TestAPoolThatWaitsForReadyWaitsForALateHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, handshakes := busy(t, shared.WithWaitForReady())
		begun := time.Now()
		borrow(t, p)
		if took := time.Since(begun); took < busyFor || took > busyFor+time.Second || handshakes.Load() != 1 {
			t.Errorf("Get took %v and %d handshakes", took, handshakes.Load())
		}
	})
}

// The harm that this must not do: the dial's timeout is heeded, and so is the pool's end.
func TestADialThatKeepsItsPlaceEndsWithItsTimeoutAndWithThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := busy(t, shared.WithDialTimeout(4*time.Second))
		if _, err := p.Get(t.Context()); err == nil {
			t.Error("a lease before the handshake was over")
		}
		time.Sleep(2 * time.Second) // virtual
		if s := p.Stats(); s.DialsFailed != 1 {
			t.Errorf("%d dials failed, want the one whose timeout is over", s.DialsFailed)
		}
		begun := time.Now()
		_, _ = p.Get(t.Context())
		if err := p.Close(); err != nil || time.Since(begun) > 4*time.Second {
			t.Errorf("Close during a dial: %v after %v", err, time.Since(begun))
		}
	})
}

// Row 28 of the fault matrix. The connection dies while nobody calls; the first call or lease
// after it gets another one, where a plain channel with time enough would.
func TestTheFirstUseAfterAQuietConnectionDiedSucceeds(t *testing.T) {
	for name, use := range map[string]func(context.Context, *shared.Pool) error{
		"Get":    try,
		"Invoke": func(ctx context.Context, p *shared.Pool) error { return emptyCall(p)(ctx) },
	} {
		for _, quiet := range []time.Duration{13 * time.Second, 20 * time.Minute} {
			for _, later := range []time.Duration{0, 100 * time.Millisecond, 3800 * time.Millisecond, 10 * time.Second} {
				t.Run(name+" after "+quiet.String()+", "+later.String(), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
						forgotten, after := grpcpooltest.NewLink(server.Dial), grpcpooltest.NewLink(server.Dial)
						var link atomic.Pointer[grpcpooltest.Link]
						link.Store(forgotten)
						f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), grpcpool.WithDialOptions(
							grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return link.Load().Dial(ctx, addr) })))
						if err != nil {
							t.Fatal(err)
						}
						p := newPool(t, f, 0)
						if err := use(t.Context(), p); err != nil {
							t.Fatal(err)
						}
						time.Sleep(quiet) // virtual
						forgotten.Drop(true, true)
						link.Store(after)
						time.Sleep(later)
						ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
						defer cancel()
						begun := time.Now()
						err = use(ctx, p)
						if err != nil && name == "Invoke" && later < 5*time.Second { // perhaps too soon: it is sent, and ends when the connection does
							if took := time.Since(begun); took > 3500*time.Millisecond {
								t.Errorf("a call on the dead connection ended after %v", took)
							}
							err = use(ctx, p)
						}
						if err != nil {
							t.Errorf("after %v: %v", time.Since(begun), err)
						}
						if s := p.Stats(); s.Dials != 1 {
							t.Errorf("%d channels were dialled, want 1", s.Dials)
						}
					})
				})
			}
		}
	}
}
