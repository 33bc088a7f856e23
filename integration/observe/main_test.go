package observe_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon bounds every wait for something that takes milliseconds. It is long so
// that a loaded machine does not fail a test.
const soon = 20 * time.Second

// limit is how many streams the servers allow on a connection, unless a test says
// otherwise. With so few none is kept free for probes.
const limit = 8

// stage is a mutual TLS server whose calls wait for leave, and a pool to it.
type stage struct {
	*grpcpooltest.Server

	t    *testing.T
	pool *shared.Pool
	gate chan struct{} // closed: calls may end
	in   chan struct{} // gets one for each call that has arrived
	wg   sync.WaitGroup

	borrowed int64 // leases taken by hand
}

// newStage makes a stage. Its pool is named "orders" and closed by the test.
func newStage(t *testing.T, opts ...shared.Option) *stage {
	t.Helper()
	return newStageWith(t, limit, opts...)
}

func newStageWith(t *testing.T, limit uint32, opts ...shared.Option) *stage {
	t.Helper()
	certs, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	config, err := certs.CA.ServerConfig(certs.Server)
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, gate: make(chan struct{}), in: make(chan struct{}, 1000)}
	s.Server = grpcpooltest.NewServer(t,
		grpcpooltest.WithTLS(config),
		grpcpooltest.WithServerOptions(grpc.MaxConcurrentStreams(limit), grpc.WaitForHandlers(true)),
		grpcpooltest.WithEmptyCall(func(ctx context.Context) error {
			s.in <- struct{}{}
			select {
			case <-s.gate:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}))
	_, port, err := net.SplitHostPort(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	factory, err := grpcpool.NewMutualTLSFactory(certs.CA.PEM, certs.Client.CertPEM, certs.Client.KeyPEM, "localhost:"+port,
		30*time.Second, 10*time.Second, nil, grpcpool.WithDialOptions(scale.WithMaxConnections(4)))
	if err != nil {
		t.Fatal(err)
	}
	s.pool = shared.New(factory, time.Hour, append([]shared.Option{shared.WithName("orders"), shared.WithLeakDetection(time.Hour)}, opts...)...)
	t.Cleanup(func() { s.pool.Close() })
	return s
}

// enter has n callers make a call each, and waits until at least arrive of them
// have reached the server.
func (s *stage) enter(n, arrive int) {
	s.t.Helper()
	for range n {
		s.wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), soon)
			defer cancel()
			_, err := testpb.NewTestServiceClient(s.pool).EmptyCall(ctx, &testpb.Empty{})
			if err != nil {
				s.t.Errorf("a call: %v", err)
			}
		})
	}
	deadline := time.NewTimer(soon)
	defer deadline.Stop()
	for i := range arrive {
		select {
		case <-s.in:
		case <-deadline.C:
			s.t.Fatalf("%d of %d calls have reached the server", i, arrive)
		}
	}
}

// leave lets the calls end, and waits for them.
func (s *stage) leave() {
	close(s.gate)
	s.wg.Wait()
}

// timeOut has n callers wait for a stream, or for a connection, until their
// deadlines have passed.
func (s *stage) timeOut(n int) {
	s.t.Helper()
	var callers sync.WaitGroup
	for range n {
		callers.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			_, err := testpb.NewTestServiceClient(s.pool).EmptyCall(ctx, &testpb.Empty{}, grpc.WaitForReady(true))
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) || err == nil {
				s.t.Errorf("a call that had no stream to be had ended with %v", err)
			}
		})
	}
	callers.Wait()
}

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(soon)
	defer deadline.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("after %v still not so: %s", soon, what)
		}
	}
}

// loseTheServer has the pool make a connection and lose it, and makes another.
func (s *stage) loseTheServer() {
	s.t.Helper()
	borrow := func() bool {
		l, err := s.pool.Get(s.t.Context())
		if err == nil {
			l.Return()
		}
		return err == nil && s.connections() > 0
	}
	eventually(s.t, "a connection", borrow)
	s.Stop()
	eventually(s.t, "no connection", func() bool { return s.connections() == 0 })
	s.Start()
	eventually(s.t, "a connection after the server's return", borrow)
}

// probes is how many probes the connection has seen that has seen the fewest.
func (s *stage) probes() int {
	least := 1000
	for _, sub := range s.pool.Stats().Current.Subchannels {
		for i := range sub.Connections {
			least = min(least, len(sub.Connections[i].ProbeTimes))
		}
	}
	return least
}

// connections is how many connections the pool's Stats show.
func (s *stage) connections() int {
	n := 0
	for _, sub := range s.pool.Stats().Current.Subchannels {
		n += len(sub.Connections)
	}
	return n
}
