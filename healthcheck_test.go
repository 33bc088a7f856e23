package grpcpool_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

func TestAHealthCheckFailsByWhatSaysThatTheServiceDoesNotServe(t *testing.T) {
	for name, test := range map[string]struct {
		server  *grpcpooltest.Server
		service string
		want    []string // in the error; none: the channel is OK
	}{
		"the whole server serves":   {healthOf(t, "", healthpb.HealthCheckResponse_SERVING), "", nil},
		"the service serves":        {healthOf(t, "orders", healthpb.HealthCheckResponse_SERVING), "orders", nil},
		"another does not":          {healthOf(t, "others", healthpb.HealthCheckResponse_NOT_SERVING), "", nil},
		"the whole server does not": {healthOf(t, "", healthpb.HealthCheckResponse_NOT_SERVING), "", []string{"NOT_SERVING for the whole server", "wait until it serves"}},
		"the service does not":      {healthOf(t, "orders", healthpb.HealthCheckResponse_NOT_SERVING), "orders", []string{`NOT_SERVING for "orders"`}},
		"not yet known":             {healthOf(t, "orders", healthpb.HealthCheckResponse_UNKNOWN), "orders", []string{`UNKNOWN for "orders"`}},
		"no such service":           {grpcpooltest.NewServer(t), "ordres", []string{`has no status for "ordres"`, "NotFound: unknown service", "WithHealthCheck"}},
		"no health service":         {grpcpooltest.NewServer(t, grpcpooltest.WithoutHealth()), "orders", nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := plainFactory(t, test.server.Addr(), grpcpool.WithHealthCheck(test.service))
			conn, err := f.NewConnection(testContext(t))
			if test.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
				return
			}
			wantNotOK(t, err)
			wantError(t, err, append(test.want, "grpcpool: pinging")...)
			if status.Code(err) != codes.Unavailable {
				t.Errorf("the code is %v", status.Code(err))
			}
		})
	}
}

// healthOf is a server that says so of the health of a service.
func healthOf(t *testing.T, service string, s healthpb.HealthCheckResponse_ServingStatus) *grpcpooltest.Server {
	t.Helper()
	server := grpcpooltest.NewServer(t)
	server.Health.SetServingStatus(service, s)
	return server
}

// Of the statuses, Unavailable and NotFound alone say that the service does not serve.
// From the others nobody learns whether it does.
func TestAHealthCheckTakesOtherStatusesForASignOfLife(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		t.Run(code.String(), func(t *testing.T) {
			server := healthSaying(t, func(context.Context) error { return status.Error(code, "connection refused, they say") })
			conn, err := plainFactory(t, server.Addr(), grpcpool.WithHealthCheck("orders")).NewConnection(testContext(t))
			switch code {
			case codes.Unavailable, codes.NotFound:
				wantNotOK(t, err)
				wantError(t, err, "grpcpool: pinging", "the health service", code.String()+": connection refused, they say")
			default:
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
			}
		})
	}
}

func TestAHealthCheckIsAsFairAsAPing(t *testing.T) {
	check := grpcpool.WithHealthCheck("orders")
	t.Run("HTTP 404", func(t *testing.T) {
		conn, err := plainFactory(t, web(t, http.StatusNotFound), check).NewConnection(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	})
	t.Run("HTTP 503", func(t *testing.T) {
		_, err := plainFactory(t, web(t, http.StatusServiceUnavailable), check).NewConnection(testContext(t))
		wantNotOK(t, err)
		wantError(t, err, "it answers HTTP 503 (Service Unavailable), not gRPC")
	})
	t.Run("no answer", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		silent := healthSaying(t, func(context.Context) error { <-t.Context().Done(); return nil })
		_, err := plainFactory(t, silent.Addr(), check).NewConnection(ctx)
		wantNotOK(t, err)
		wantError(t, err, "DeadlineExceeded")
	})
}

// The pool's Get says what the server has said, and lends again when it serves.
func TestAPoolWithAHealthCheckLendsNothingWhileTheServiceDoesNotServe(t *testing.T) {
	server := healthOf(t, "orders", healthpb.HealthCheckResponse_NOT_SERVING)
	for name, opts := range map[string][]grpcpool.FactoryOption{
		"with the check":    {grpcpool.WithHealthCheck("orders")},
		"without the check": nil,
	} {
		t.Run(name, func(t *testing.T) {
			pool := shared.New(plainFactory(t, server.Addr(), opts...), time.Minute)
			defer pool.Close()
			lease, err := pool.Get(testContext(t))
			if opts != nil {
				wantNotOK(t, err)
				wantError(t, err, `NOT_SERVING for "orders"`)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			lease.Return()
		})
	}
}

// A plain channel carries the calls of a server that says it is unwell, on one connection.
func TestAServerThatSaysThatItIsUnwellIsNotDialledAnew(t *testing.T) {
	for name, say := range map[string]func(*grpcpooltest.Server, *atomic.Bool){
		"NOT_SERVING": func(s *grpcpooltest.Server, _ *atomic.Bool) {
			s.Health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
		},
		"UNAVAILABLE": func(_ *grpcpooltest.Server, unavailable *atomic.Bool) { unavailable.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var unavailable atomic.Bool
				server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(), grpcpooltest.WithServerOptions(
					grpc.UnaryInterceptor(func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
						if unavailable.Load() && info.FullMethod == healthpb.Health_Check_FullMethodName {
							return nil, status.Error(codes.Unavailable, "no healthy upstream")
						}
						return handler(ctx, request)
					})))
				f := plainFactory(t, server.Target(), grpcpool.WithDialOptions(server.DialOptions()...),
					grpcpool.WithDialOptions(scale.WithProbeInterval(0))) // or the channel's own proof would do
				pool := shared.New(f, 0)
				defer pool.Close()
				say(server, &unavailable)
				for range 60 {
					time.Sleep(time.Second)
					lease, err := pool.Get(t.Context()) // the last proof is old, so the pool tests
					if err != nil {
						t.Fatal(err)
					}
					lease.Return()
					if _, err := testpb.NewTestServiceClient(pool).EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
						t.Fatal(err)
					}
				}
				if s := pool.Stats(); server.Accepted() != 1 || s.TestsFailed != 0 || s.Tests == 0 {
					t.Errorf("%d connections, %d of %d tests failed, want 1 and none", server.Accepted(), s.TestsFailed, s.Tests)
				}
			})
		})
	}
}

func TestAHealthCheckAndAPingDoNotGoTogether(t *testing.T) {
	check, ping := grpcpool.WithHealthCheck(""), grpcpool.WithPing(grpcpool.HealthPing)
	l := localhost(t)
	for name, construct := range map[string]func() (*grpcpool.Factory, error){
		"an option before it": func() (*grpcpool.Factory, error) {
			return grpcpool.NewFactory("localhost:1", insecure.NewCredentials(), ping, check)
		},
		"an option after it": func() (*grpcpool.Factory, error) {
			return grpcpool.NewFactory("localhost:1", insecure.NewCredentials(), check, ping)
		},
		"an argument": func() (*grpcpool.Factory, error) {
			return grpcpool.NewMutualTLSFactory(l.CA.PEM, l.Client.CertPEM, l.Client.KeyPEM, "localhost:1", 0, 0, grpcpool.HealthPing, check)
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := construct()
			wantError(t, err, "grpcpool: both a PingFunc and WithHealthCheck are given")
		})
	}
	_, err := grpcpool.NewFactory("localhost:1", insecure.NewCredentials(), grpcpool.WithHealthCheck("\xff"))
	wantError(t, err, `grpcpool: WithHealthCheck: "\xff" is not UTF-8`)
}

// A server that authenticates every method answers the test with Unauthenticated. The
// calls carry their tokens.
func TestAPoolWorksWithAServerThatAuthenticatesEveryMethod(t *testing.T) {
	server := grpcpooltest.NewServer(t, grpcpooltest.WithServerOptions(authenticates()...))
	f := plainFactory(t, server.Addr())
	pool := shared.New(f, time.Minute)
	defer pool.Close()
	lease, err := pool.Get(testContext(t)) // tests the channel, without a token
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Return()
	withToken := bearer(testContext(t))
	if _, err := testpb.NewTestServiceClient(pool).EmptyCall(withToken, &testpb.Empty{}); err != nil {
		t.Errorf("with a token: %v", err)
	}
	_, err = testpb.NewTestServiceClient(pool).EmptyCall(testContext(t), &testpb.Empty{})
	if status.Code(err) != codes.Unauthenticated || errors.Is(err, grpcpool.ErrConnectionNotOK) {
		t.Errorf("without one: %v, want the server's status", err)
	}
	if n := server.Accepted(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// authenticates are options of a server that wants a token for every method.
func authenticates() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if !hasToken(ctx) {
				return nil, status.Error(codes.Unauthenticated, "no token")
			}
			return handler(ctx, request)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			if !hasToken(stream.Context()) {
				return status.Error(codes.Unauthenticated, "no token")
			}
			return handler(srv, stream)
		}),
	}
}
