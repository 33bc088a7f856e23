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
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/shared"
)

func TestWhatTheChannelHasProvedIsNotTested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := inMemory(t, 0)
		l := get(t, p)
		conn := l.Connection()
		for range 20 {
			time.Sleep(2 * time.Second) // virtual: the pool has no proof of its own any more
			if _, err := testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
			borrow(t, p)
		}
		l.Return()
		if n := p.Stats().Tests; n != 0 {
			t.Errorf("%d tests right after calls that the channel has seen answered", n)
		}
	})
}

func TestACallOnThePoolNeedsNoTestWhereTheChannelWatchesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, server := inMemory(t, 0)
		client := testpb.NewTestServiceClient(p)
		for range 5 {
			if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
				t.Fatal(err)
			}
			s, err := client.FullDuplexCall(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_ = s.CloseSend()
			_, _ = s.Recv()
			time.Sleep(time.Minute) // virtual
		}
		if n := p.Stats().Tests; n != 0 || server.Accepted() != 1 {
			t.Errorf("%d tests before calls and %d connections, want 0 and 1", n, server.Accepted())
		}
	})
}

// The harm that this must not do: a pool that waits for ready outlasts an outage that began
// while nobody called.
func TestAPoolThatWaitsForReadyWaitsThoughTheChannelWatchesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, server := inMemory(t, 0, shared.WithWaitForReady())
		client := testpb.NewTestServiceClient(p)
		if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // virtual
		server.Stop()
		synctest.Wait() // the channel knows: a call that is on its way then has failed
		time.AfterFunc(10*time.Second, server.Start)
		if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
			t.Errorf("the call did not wait: %v", err)
		}
	})
}

// A lease is out and nobody calls: the end of the connection is the only word of it.
func TestALostConnectionPromptsATestAndNoOtherChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, server := inMemory(t, 0)
		l := get(t, p)
		time.Sleep(time.Minute) // virtual: the watchdog sleeps
		server.Stop()
		synctest.Wait()
		s := p.Stats()
		if s.State != shared.StateFailing || s.TestsFailed == 0 || s.Dials != 1 {
			t.Errorf("%s, %d tests failed, %d channels dialled, want failing, some, 1", s.State, s.TestsFailed, s.Dials)
		}
		server.Start()
		time.Sleep(5 * time.Second) // virtual
		synctest.Wait()
		if s := p.Stats(); s.State != shared.StateReady || s.Dials != 1 || l.Connection() == nil {
			t.Errorf("%s after the server's return, %d channels dialled, want ready, 1", s.State, s.Dials)
		}
		borrow(t, p)
		l.Return()
	})
}

// A verdict of the ping on a connection that lives is the pool's to act on.
func TestAChannelWhoseServerIsNotServingIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		well := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		ill := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		p := newPool(t, switching(t, ill, well, grpcpool.WithHealthCheck("")), 0)
		borrow(t, p)
		ill.Health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
		for range 20 { // the ping is made when the channel's own proof is too old
			time.Sleep(30 * time.Second) // virtual
			borrow(t, p)
		}
		if n := p.Stats().Replaced; n != 1 || well.Accepted() != 1 {
			t.Errorf("%d channels replaced, %d connections to the other server, want 1 of both", n, well.Accepted())
		}
	})
}

// The promise that is kept: a channel that stays broken is replaced where another can be had.
func TestAChannelThatDoesNotRecoverIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		well := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		gone := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		p := newPool(t, switching(t, gone, well), 0)
		borrow(t, p)
		gone.Stop()
		synctest.Wait()
		begun := time.Now()
		for {
			l, err := p.Get(t.Context())
			if err == nil {
				l.Return()
				break
			}
			time.Sleep(100 * time.Millisecond) // virtual
			if time.Since(begun) > time.Minute {
				t.Fatalf("no channel in a minute: %v", err)
			}
		}
		if took := time.Since(begun); took < 9*time.Second || took > 13*time.Second {
			t.Errorf("another channel after %v, want about ten seconds, which the first has for itself", took)
		}
	})
}

// switchingFactory makes its first channel to one server and every later one to another.
type switchingFactory struct {
	factories [2]*grpcpool.Factory
	dials     atomic.Int32
}

func switching(t *testing.T, first, later *grpcpooltest.Server, opts ...grpcpool.FactoryOption) *switchingFactory {
	t.Helper()
	s := &switchingFactory{}
	for i, server := range []*grpcpooltest.Server{first, later} {
		dial := grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial))
		f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), append(opts, dial)...)
		if err != nil {
			t.Fatal(err)
		}
		s.factories[i] = f
	}
	return s
}

func (s *switchingFactory) NewInspectedConnection(ctx context.Context) (*grpc.ClientConn, grpcpool.Inspector, error) {
	return s.factories[min(s.dials.Add(1)-1, 1)].NewInspectedConnection(ctx)
}

func (s *switchingFactory) NewConnection(ctx context.Context) (*grpc.ClientConn, error) {
	conn, _, err := s.NewInspectedConnection(ctx)
	return conn, err
}

func (s *switchingFactory) ConnectionOk(ctx context.Context, conn *grpc.ClientConn) error {
	return s.factories[0].ConnectionOk(ctx, conn)
}

// One dead connection, as when a NAT has forgotten it: the channel replaces it by itself.
func TestOneDeadConnectionIsReplacedWithoutAnotherChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		before, after := grpcpooltest.NewLink(server.Dial), grpcpooltest.NewLink(server.Dial)
		var link atomic.Pointer[grpcpooltest.Link]
		link.Store(before)
		f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), grpcpool.WithDialOptions(
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return link.Load().Dial(ctx, addr) })))
		if err != nil {
			t.Fatal(err)
		}
		p := newPool(t, f, 0)
		borrow(t, p)
		time.Sleep(10 * time.Second) // virtual, as what follows
		before.Drop(true, true)
		link.Store(after)
		begun := time.Now()
		for time.Since(begun) < 10*time.Second {
			borrow(t, p) // fails the test if there is no lease
			time.Sleep(time.Second)
		}
		if s := p.Stats(); s.Dials != 1 || after.Dials() > 2 {
			t.Errorf("%d channels and %d connections, want 1 and 1", s.Dials, after.Dials())
		}
	})
}
