//go:build unix

package integration_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/integration/internal/realserver"
)

// limit is how many streams the real servers allow on a connection.
const limit = 8

// realServer is a server of the operating system's, ready for use.
type realServer struct {
	*realserver.Server

	// call makes a unary RPC whose answer shows that the request arrived.
	call func(ctx context.Context, cc grpc.ClientConnInterface) error

	// hold makes an RPC that has a stream of the server's and keeps it until
	// it gets a turn at g.
	hold func(ctx context.Context, cc grpc.ClientConnInterface, g *gate) error
}

// realServers are the ways to start one. Each skips the test if it is not installed.
var realServers = []struct {
	name  string
	start func(t *testing.T, certs *grpcpooltest.Certs, g *gate) realServer
}{
	{"nginx", func(t *testing.T, certs *grpcpooltest.Certs, g *gate) realServer {
		return behind(t, realserver.StartNginx, certs, g)
	}},
	{"haproxy", func(t *testing.T, certs *grpcpooltest.Certs, g *gate) realServer {
		return behind(t, realserver.StartHAProxy, certs, g)
	}},
	{"etcd", func(t *testing.T, certs *grpcpooltest.Certs, _ *gate) realServer {
		s := realserver.StartEtcd(t, realserver.Config{Certs: certs, MaxStreams: limit})
		return realServer{s, putAndGet, holdKeepAlive}
	}},
}

// behind starts a proxy in front of a gRPC server in this process.
func behind(t *testing.T, start func(testing.TB, realserver.Config) *realserver.Server, certs *grpcpooltest.Certs, g *gate) realServer {
	t.Helper()
	s := start(t, realserver.Config{Certs: certs, MaxStreams: limit, Backend: startBackend(t, g)})
	return realServer{s, checkHealth, holdHealth}
}

// held is the name of the health service whose Check waits at the gate.
const held = "held"

// backend is a gRPC server's service: Check answers at once, except for held.
type backend struct {
	healthpb.UnimplementedHealthServer

	gate *gate
}

func (b *backend) Check(ctx context.Context, in *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	switch in.GetService() {
	case "":
	case held:
		if err := b.gate.pass(ctx); err != nil {
			return nil, status.FromContextError(err).Err()
		}
	default:
		return nil, status.Errorf(codes.NotFound, "no service %q", in.GetService())
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

// startBackend serves gRPC without TLS until the test ends.
func startBackend(t *testing.T, g *gate) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, &backend{gate: g})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		// It has been stopped before it began if the test skips.
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("the backend: %v", err)
		}
	})
	return l.Addr().String()
}

func checkHealth(ctx context.Context, cc grpc.ClientConnInterface) error {
	_, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{})
	return err
}

func holdHealth(ctx context.Context, cc grpc.ClientConnInterface, _ *gate) error {
	_, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{Service: held})
	return err
}

func putAndGet(ctx context.Context, cc grpc.ClientConnInterface) error {
	if err := put(ctx, cc, "key", "value"); err != nil {
		return err
	}
	_, err := get(ctx, cc, "key")
	return err
}

func holdKeepAlive(ctx context.Context, cc grpc.ClientConnInterface, g *gate) error {
	stream, err := keepAlive(ctx, cc)
	if err != nil {
		return err
	}
	if err := g.pass(ctx); err != nil {
		return err
	}
	return endKeepAlive(stream)
}

func TestCallsReachRealServersOverMutualTLS(t *testing.T) {
	for _, server := range realServers {
		t.Run(server.name, func(t *testing.T) {
			certs := localhost(t)
			s := server.start(t, certs, nil)
			pool := newPool(t, mutualTLS(t, certs, s.Addr))
			ctx := within(t, soon)
			for range 10 {
				if err := s.call(ctx, pool); err != nil {
					t.Fatalf("on the pool: %v", err)
				}
				conn, err := pool.Get(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.call(ctx, conn.Connection()); err != nil {
					t.Fatalf("on a lease: %v", err)
				}
				conn.Return()
			}
			if s := pool.Stats(); s.Dials != 1 || s.Leases != 0 {
				t.Errorf("want one dial and no lease: %+v", s)
			}
		})
	}
}

func TestRealServersRefuseAClientAndTheErrorNamesTheReason(t *testing.T) {
	reasons := map[string]struct{ none, otherCA string }{
		// nginx finishes the handshake and refuses each request instead.
		"nginx":   {"400 (Bad Request)", "400 (Bad Request)"},
		"haproxy": {"certificate required", "unknown certificate authority"},
		// Which alert it is depends on the Go version that it was built with.
		"etcd": {"remote error: tls: ", "remote error: tls: "},
	}
	for _, server := range realServers {
		t.Run(server.name, func(t *testing.T) {
			certs, other := localhost(t), localhost(t)
			s := server.start(t, certs, nil)
			t.Run("no certificate", func(t *testing.T) {
				_, err := newPool(t, withoutCertificate(t, certs, s.Addr)).Get(within(t, soon))
				wantRefused(t, err, reasons[server.name].none)
			})
			t.Run("a certificate of another CA", func(t *testing.T) {
				_, err := newPool(t, showing(t, other.Client, certs, s.Addr)).Get(within(t, soon))
				wantRefused(t, err, reasons[server.name].otherCA)
			})
		})
	}
}

func TestEtcdIsKilledAndStartedUnderLoad(t *testing.T) {
	certs := localhost(t)
	etcd := realserver.StartEtcd(t, realserver.Config{Certs: certs, MaxStreams: 1000})
	testRestartUnderLoad(t, certs, etcd.Addr, etcd, nil)
}
