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

// Instrument makes the RPCs on a factory's channels appear as client spans, sends
// their trace along in headers, and measures them. It adds otelgrpc's
// stats.Handler, beside any that the factory's dial options add.
//
// Each RPC is one span, named service/method, with the attributes of the
// OpenTelemetry semantic conventions for RPC. An RPC whose context has no span
// begins a trace, except for the pool's own pings (see the package
// documentation). Retries that gRPC makes by itself are spans of their own.
func Instrument(opts ...Option) grpcpool.FactoryOption {
	cfg := newConfig(opts)
	all := []otelgrpc.Option{
		otelgrpc.WithTracerProvider(cfg.tracerProvider),
		otelgrpc.WithMeterProvider(cfg.meterProvider),
		otelgrpc.WithPropagators(cfg.propagators),
	}
	if !cfg.healthChecks {
		all = append(all, otelgrpc.WithFilter(filters.Not(filters.HealthCheck())))
	}
	all = append(all, cfg.handlerOptions...)
	return grpcpool.WithDialOptions(grpc.WithStatsHandler(callersOnly{otelgrpc.NewClientHandler(all...)}))
}

// callersOnly hides from a handler the RPCs that the pool makes for nobody.
type callersOnly struct {
	stats.Handler
}

func (h callersOnly) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	if forNobody(ctx) {
		return ctx
	}
	return h.Handler.TagRPC(ctx, info)
}

func (h callersOnly) HandleRPC(ctx context.Context, rs stats.RPCStats) {
	if !forNobody(ctx) { // as TagRPC saw it: it adds a span only where it has found no reason to pass
		h.Handler.HandleRPC(ctx, rs)
	}
}

type forNobodyKey struct{}

// markForNobody marks what the pool begins for nobody whose trace it could be in.
func markForNobody(ctx context.Context) context.Context {
	return context.WithValue(ctx, forNobodyKey{}, true)
}

// forNobody reports whether ctx is marked and no span has been begun since, as a
// PingFunc may do that traces itself.
func forNobody(ctx context.Context) bool {
	return !trace.SpanContextFromContext(ctx).IsValid() && ctx.Value(forNobodyKey{}) != nil
}
