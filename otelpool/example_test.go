package otelpool_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/otelpool"
	"github.com/davidwartell/go-grpcpool/shared"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc/filters"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// The first Get of a pool waits for a connection, and its trace says so.
func Example() {
	// A program has one TracerProvider with an exporter; this one keeps spans.
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))

	ids, server := exampleServer(provider)

	tracing := otelpool.WithTracerProvider(provider)
	factory, err := grpcpool.NewMutualTLSFactory(ids.CA.PEM, ids.Client.CertPEM, ids.Client.KeyPEM, server.Addr(),
		30*time.Second, 10*time.Second, nil, otelpool.WithInstrumentation(tracing))
	if err != nil {
		log.Fatal(err)
	}
	pool := shared.New(factory, 5*time.Minute, shared.WithName("orders"), otelpool.WithTracing(tracing))

	ctx, span := provider.Tracer("shop").Start(context.Background(), "order")
	conn, err := pool.Get(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := testpb.NewBenchmarkServiceClient(conn.Connection()).UnaryCall(ctx, &testpb.SimpleRequest{}); err != nil {
		log.Fatal(err)
	}
	conn.Return()
	span.End()
	if err := pool.Close(); err != nil {
		log.Fatal(err)
	}
	if err := server.Stop(); err != nil { // its span has ended now
		log.Fatal(err)
	}

	oneTrace := true
	for _, s := range spans.Started() {
		fmt.Println(s.SpanKind(), s.Name())
		oneTrace = oneTrace && s.SpanContext().TraceID() == span.SpanContext().TraceID()
	}
	fmt.Println("one trace:", oneTrace)
	// Output:
	// internal order
	// internal grpcpool.wait
	// internal grpcpool.dial
	// client grpc.testing.BenchmarkService/UnaryCall
	// server grpc.testing.BenchmarkService/UnaryCall
	// one trace: true
}

// exampleServer is a server that joins its clients' traces.
func exampleServer(provider *sdktrace.TracerProvider) (*grpcpooltest.Certs, *grpcpooltest.Standalone) {
	ids, err := grpcpooltest.NewCerts()
	if err != nil {
		log.Fatal(err)
	}
	config, err := ids.CA.ServerConfig(ids.Server)
	if err != nil {
		log.Fatal(err)
	}
	server := grpcpooltest.NewStandalone(grpcpooltest.WithServerOptions(grpc.Creds(credentials.NewTLS(config)), grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(provider),
		otelgrpc.WithPropagators(propagation.TraceContext{}),
		otelgrpc.WithFilter(filters.Not(filters.HealthCheck())),
	))))
	if err := server.Start(context.Background()); err != nil {
		log.Fatal(err)
	}
	return ids, server
}
