package otelpool

import (
	"context"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc/filters"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/davidwartell/go-grpcpool"
)

// WithInstrumentation returns an option of a factory that makes a client span for each RPC on its
// channels, sends the trace to the server in headers, and measures the RPCs. It adds the
// stats.Handler of otelgrpc; those of other dial options stay in use.
//
// A span is named service/method and has the attributes of the OpenTelemetry semantic
// conventions for RPC. An RPC whose context has no span begins a trace, unless it is one of
// the pool's own pings (see the package documentation). A retry that gRPC makes by itself
// is a span of its own.
func WithInstrumentation(opts ...Option) grpcpool.FactoryOption {
	cfg := newConfig("WithInstrumentation", opts)
	all := []otelgrpc.Option{
		otelgrpc.WithTracerProvider(cfg.tracerProvider),
		otelgrpc.WithMeterProvider(cfg.meterProvider),
		otelgrpc.WithPropagators(cfg.propagators),
	}
	if !cfg.healthChecks {
		all = append(all, otelgrpc.WithFilter(filters.Not(filters.HealthCheck())))
	}
	all = append(all, cfg.handlerOptions...)
	return grpcpool.WithDialOptions(grpc.WithStatsHandler(skipBackground{otelgrpc.NewClientHandler(all...)}))
}

// skipBackground hides from a handler the RPCs that the pool makes in the background.
type skipBackground struct {
	stats.Handler
}

func (h skipBackground) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	if isBackground(ctx) {
		return ctx
	}
	return h.Handler.TagRPC(ctx, info)
}

func (h skipBackground) HandleRPC(ctx context.Context, rs stats.RPCStats) {
	if !isBackground(ctx) { // the same result as in TagRPC, which adds no span to a background context
		h.Handler.HandleRPC(ctx, rs)
	}
}

type backgroundKey struct{}

// contextWithBackground marks what the pool does without a caller's trace to put it in.
func contextWithBackground(ctx context.Context) context.Context {
	return context.WithValue(ctx, backgroundKey{}, true)
}

// isBackground reports whether ctx is marked and has no span. A PingFunc that traces itself
// may have begun one.
func isBackground(ctx context.Context) bool {
	return !trace.SpanContextFromContext(ctx).IsValid() && ctx.Value(backgroundKey{}) != nil
}
