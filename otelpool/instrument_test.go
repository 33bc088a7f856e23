package otelpool_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/otelpool"
	"github.com/davidwartell/go-grpcpool/scale"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

func TestTheSpansOfACallOnBothSidesShareOneTrace(t *testing.T) {
	client, atServer := newSide(), newSide()
	server, ids := startServer(t, serverTracing(atServer))
	pool := newPool(t, ids, server.Addr(),
		[]grpcpool.FactoryOption{otelpool.WithInstrumentation(otelpool.WithTracerProvider(client.provider))})

	ctx, span := client.begin(t.Context())
	call(ctx, t, pool)
	span.End()
	if err := server.Stop(); err != nil { // its span has ended then
		t.Fatal(err)
	}

	sent := client.only(t, callSpan)
	wantChild(t, sent, span.SpanContext())
	if sent.SpanKind() != trace.SpanKindClient {
		t.Errorf("the client's span is of kind %v", sent.SpanKind())
	}
	received := atServer.only(t, callSpan)
	wantChild(t, received, sent.SpanContext())
	if !received.Parent().IsRemote() || received.SpanKind() != trace.SpanKindServer {
		t.Errorf("the server's span: kind %v, remote parent %v", received.SpanKind(), received.Parent().IsRemote())
	}
}

func TestACallWithoutASpanBeginsATrace(t *testing.T) {
	client, atServer := newSide(), newSide()
	server, ids := startServer(t, serverTracing(atServer))
	pool := newPool(t, ids, server.Addr(),
		[]grpcpool.FactoryOption{otelpool.WithInstrumentation(otelpool.WithTracerProvider(client.provider))},
		otelpool.WithTracing(otelpool.WithTracerProvider(client.provider)))

	call(t.Context(), t, pool)
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}

	if got := client.recorder.Ended(); len(got) != 1 || got[0].Name() != callSpan || got[0].Parent().IsValid() {
		t.Fatalf("the client's spans are %q, want one %q without a parent", names(got), callSpan)
	}
	wantChild(t, atServer.only(t, callSpan), client.only(t, callSpan).SpanContext())
}

// markPropagator writes a header of its own.
type markPropagator struct{}

func (markPropagator) Inject(ctx context.Context, carrier propagation.TextMapCarrier) {
	carrier.Set("x-mark", trace.SpanContextFromContext(ctx).TraceID().String())
}

func (markPropagator) Extract(ctx context.Context, _ propagation.TextMapCarrier) context.Context {
	return ctx
}
func (markPropagator) Fields() []string { return []string{"x-mark"} }

// noPropagator writes no header, as OpenTelemetry's own default.
type noPropagator struct{ markPropagator }

func (noPropagator) Inject(context.Context, propagation.TextMapCarrier) {}
func (noPropagator) Fields() []string                                   { return nil }

// headersOf makes a call under a span and returns its trace and the headers that
// the server got.
func headersOf(t *testing.T, opts ...otelpool.Option) (trace.TraceID, metadata.MD) {
	t.Helper()
	client := newSide()
	var got metadata.MD
	server, ids := startServer(t, grpc.UnaryInterceptor(
		func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if info.FullMethod != healthpb.Health_Check_FullMethodName {
				got, _ = metadata.FromIncomingContext(ctx)
			}
			return handler(ctx, request)
		}))
	pool := newPool(t, ids, server.Addr(), []grpcpool.FactoryOption{
		otelpool.WithInstrumentation(append(opts, otelpool.WithTracerProvider(client.provider))...),
	})
	ctx, span := client.begin(t.Context())
	defer span.End()
	conn, err := pool.Get(ctx) // which pings
	if err != nil {
		t.Fatal(err)
	}
	call(ctx, t, conn.Connection())
	conn.Return()
	if err := server.Stop(); err != nil { // orders the read of got after its write
		t.Fatal(err)
	}
	return span.SpanContext().TraceID(), got
}

func TestThePropagatorsThatAreGivenAreHonoured(t *testing.T) {
	id, headers := headersOf(t, otelpool.WithPropagators(markPropagator{}))
	if got := headers.Get("x-mark"); len(got) != 1 || got[0] != id.String() {
		t.Errorf("x-mark is %q, want %q", got, id)
	}
	if got := headers.Get("traceparent"); got != nil {
		t.Errorf("traceparent is %q, want none: W3C was not asked for", got)
	}
}

func TestTheHeadersAreW3CsUnlessTheProgramHasAGlobalPropagator(t *testing.T) {
	id, headers := headersOf(t)
	if got := headers.Get("traceparent"); len(got) != 1 || len(got[0]) != 55 || got[0][3:35] != id.String() {
		t.Errorf("traceparent is %q, want trace %q in it", got, id)
	}

	otel.SetTextMapPropagator(markPropagator{})
	// What was there before stands for what was set from now on, so that it
	// cannot be put back.
	defer otel.SetTextMapPropagator(noPropagator{})
	id, headers = headersOf(t)
	if got := headers.Get("x-mark"); len(got) != 1 || got[0] != id.String() {
		t.Errorf("x-mark is %q, want %q", got, id)
	}
	if got := headers.Get("traceparent"); got != nil {
		t.Errorf("traceparent is %q, want none: the global propagator does not write it", got)
	}
}

func TestNothingGlobalIsSet(t *testing.T) {
	tracers, meters, propagators := otel.GetTracerProvider(), otel.GetMeterProvider(), otel.GetTextMapPropagator()
	headersOf(t, otelpool.WithMeterProvider(noop.NewMeterProvider()), otelpool.WithPropagators(propagation.Baggage{}))
	if otel.GetTracerProvider() != tracers || otel.GetMeterProvider() != meters || otel.GetTextMapPropagator() != propagators {
		t.Error("a global of OpenTelemetry has changed")
	}
}

// countingMeters counts what is recorded in any histogram.
type countingMeters struct {
	noop.MeterProvider

	recorded *int
}

type countingMeter struct {
	noop.Meter

	recorded *int
}

type countingHistogram struct {
	noop.Float64Histogram

	recorded *int
}

func (p countingMeters) Meter(string, ...metric.MeterOption) metric.Meter {
	return countingMeter{recorded: p.recorded}
}

func (m countingMeter) Float64Histogram(string, ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return countingHistogram{recorded: m.recorded}, nil
}

func (h countingHistogram) Record(context.Context, float64, ...metric.RecordOption) { *h.recorded++ }

func (countingHistogram) Enabled(context.Context) bool { return true }

func TestCallsAreMeasuredAndPingsAreNot(t *testing.T) {
	recorded := 0
	headersOf(t, otelpool.WithMeterProvider(countingMeters{recorded: &recorded})) // pings once, calls once
	if recorded != 1 {
		t.Errorf("%d measurements, want 1", recorded)
	}
}

func TestOptionsOfOtelgrpcArePassedOnAndWin(t *testing.T) {
	recorded := 0
	all := otelgrpc.WithFilter(func(*stats.RPCTagInfo) bool { return true })
	headersOf(t, otelpool.WithMeterProvider(countingMeters{recorded: &recorded}), otelpool.WithHandlerOptions(all))
	if recorded != 2 {
		t.Errorf("%d measurements, want 2: the ping's and the call's", recorded)
	}
}

func TestHealthChecksAreInATraceOnlyWhenAskedFor(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts []otelpool.Option
		want int
	}{
		{"by default", nil, 0},
		{"asked for", []otelpool.Option{otelpool.WithHealthChecks()}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client := newSide()
			server, ids := startServer(t)
			opts := append([]otelpool.Option{otelpool.WithTracerProvider(client.provider)}, tt.opts...)
			pool := newPool(t, ids, server.Addr(), []grpcpool.FactoryOption{otelpool.WithInstrumentation(opts...)}, otelpool.WithTracing(opts...))
			ctx, span := client.begin(t.Context())
			conn, err := pool.Get(ctx)
			if err != nil {
				t.Fatal(err)
			}
			conn.Return()
			span.End()
			pings := client.named(healthSpan)
			if len(pings) != tt.want {
				t.Fatalf("%d spans of health checks, want %d", len(pings), tt.want)
			}
			if tt.want == 1 {
				wantChild(t, pings[0], client.only(t, "grpcpool.dial").SpanContext())
			}
		})
	}
}

func TestTheWatchdogMakesNoSpan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := newSide()
		pings := 0
		ping := func(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
			pings++
			// Unlike a health check's, this method's name says nothing of a ping.
			err := conn.Invoke(ctx, "/etcdserverpb.Maintenance/Status", &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{})
			if status.Code(err) == codes.Unimplemented {
				err = nil
			}
			return 0, err
		}
		opts := []otelpool.Option{otelpool.WithTracerProvider(client.provider), otelpool.WithHealthChecks()}
		unwatched := grpcpool.WithDialOptions(scale.WithProbeInterval(0)) // else the pool leaves tests to the channel
		pool := inMemory(t, []grpcpool.FactoryOption{otelpool.WithInstrumentation(opts...), grpcpool.WithPing(ping), unwatched}, otelpool.WithTracing(opts...))

		ctx, span := client.begin(t.Context())
		conn, err := pool.Get(ctx)
		if err != nil {
			t.Fatal(err)
		}
		span.End()
		inTrace := len(client.recorder.Started())
		time.Sleep(10 * time.Second) // the watchdog tests about once a second while the lease is out
		synctest.Wait()
		conn.Return()
		if pings < 5 {
			t.Errorf("%d pings in ten seconds: the watchdog has not been at work", pings)
		}
		if got := client.recorder.Started(); len(got) != inTrace {
			t.Errorf("the watchdog made spans: %d before it, %d after", inTrace, len(got))
		}
		if got := len(client.named("etcdserverpb.Maintenance/Status")); got != 1 {
			t.Errorf("%d spans of pings, want 1: that of the caller's dial", got)
		}
	})
}
