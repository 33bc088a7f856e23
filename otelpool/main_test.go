package otelpool_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/shared"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/test/bufconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	callSpan   = "grpc.testing.BenchmarkService/UnaryCall"
	healthSpan = "grpc.health.v1.Health/Check"
)

// side is one side's tracing: its provider and what that has recorded.
type side struct {
	provider *sdktrace.TracerProvider
	recorder *tracetest.SpanRecorder
}

func newSide() side {
	r := tracetest.NewSpanRecorder()
	return side{sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r)), r}
}

// begin starts a caller's own span.
func (s side) begin(ctx context.Context) (context.Context, trace.Span) {
	return s.provider.Tracer("caller").Start(ctx, "caller") //nolint:spancheck // the test ends it
}

// named returns the ended spans of that name.
func (s side) named(name string) []sdktrace.ReadOnlySpan {
	var found []sdktrace.ReadOnlySpan
	for _, span := range s.recorder.Ended() {
		if span.Name() == name {
			found = append(found, span)
		}
	}
	return found
}

// only returns the one ended span of that name.
func (s side) only(t *testing.T, name string) sdktrace.ReadOnlySpan {
	t.Helper()
	found := s.named(name)
	if len(found) != 1 {
		t.Fatalf("%d spans named %q, want 1; there are %q", len(found), name, names(s.recorder.Ended()))
	}
	return found[0]
}

func names(spans []sdktrace.ReadOnlySpan) []string {
	all := make([]string, 0, len(spans))
	for _, span := range spans {
		all = append(all, span.Name())
	}
	return all
}

// wantChild fails unless child is a child of parent in its trace.
func wantChild(t *testing.T, child sdktrace.ReadOnlySpan, parent trace.SpanContext) {
	t.Helper()
	if child.SpanContext().TraceID() != parent.TraceID() || child.Parent().SpanID() != parent.SpanID() {
		t.Errorf("%s: trace %v with parent %v, want trace %v with parent %v",
			child.Name(), child.SpanContext().TraceID(), child.Parent().SpanID(), parent.TraceID(), parent.SpanID())
	}
}

// startServer starts a mutual TLS server on loopback and returns it with the
// identities for its clients.
func startServer(t testing.TB, opts ...grpc.ServerOption) (*grpcpooltest.Standalone, *grpcpooltest.Certs) {
	t.Helper()
	ids, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	config, err := ids.CA.ServerConfig(ids.Server)
	if err != nil {
		t.Fatal(err)
	}
	server := grpcpooltest.NewStandalone(grpcpooltest.WithServerOptions(append(opts, grpc.Creds(credentials.NewTLS(config)))...))
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return server, ids
}

// newPool makes a pool named "test" over a mutual TLS factory.
func newPool(t testing.TB, ids *grpcpooltest.Certs, address string, options []grpcpool.FactoryOption, poolOptions ...shared.Option) *shared.Pool {
	t.Helper()
	factory, err := grpcpool.NewMutualTLSFactory(ids.CA.PEM, ids.Client.CertPEM, ids.Client.KeyPEM,
		address, 30*time.Second, 10*time.Second, nil, options...)
	if err != nil {
		t.Fatal(err)
	}
	pool := shared.New(factory, time.Minute, append([]shared.Option{shared.WithName("test")}, poolOptions...)...)
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	return pool
}

// serverTracing is the server's half as the package documentation says, health
// checks included.
func serverTracing(s side) grpc.ServerOption {
	return grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(s.provider), otelgrpc.WithPropagators(propagation.TraceContext{})))
}

func call(ctx context.Context, t testing.TB, cc grpc.ClientConnInterface) {
	t.Helper()
	request := &testpb.SimpleRequest{Payload: &testpb.Payload{Body: []byte("hello")}}
	answer, err := testpb.NewBenchmarkServiceClient(cc).UnaryCall(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(answer.GetPayload().GetBody()); got != "hello" {
		t.Fatalf("the server answered %q, want %q", got, "hello")
	}
}

// inMemory is a pool to a mutual TLS server over bufconn, for synctest bubbles.
func inMemory(t *testing.T, options []grpcpool.FactoryOption, poolOptions ...shared.Option) *shared.Pool {
	t.Helper()
	ids, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	config, err := ids.CA.ServerConfig(ids.Server)
	if err != nil {
		t.Fatal(err)
	}
	listener := bufconn.Listen(64 << 10)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
	healthpb.RegisterHealthServer(server, health.NewServer())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	dial := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) })
	return newPool(t, ids, "passthrough:///localhost", append(options, grpcpool.WithDialOptions(dial)), poolOptions...)
}
