package otelpool

import (
	"context"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Option changes what Instrument, Trace and Metrics do. All take the same options,
// so that a program can set them down once; Trace needs only the TracerProvider,
// Metrics the MeterProvider, and they pass over the others.
type Option func(*config)

type config struct {
	tracerProvider trace.TracerProvider // nil: OpenTelemetry's global one
	meterProvider  metric.MeterProvider // nil: OpenTelemetry's global one
	propagators    propagation.TextMapPropagator
	healthChecks   bool
	handlerOptions []otelgrpc.Option
}

func newConfig(opts []Option) *config {
	cfg := &config{}
	for _, opt := range opts {
		if opt != nil {
			opt(cfg)
		}
	}
	if cfg.tracerProvider == nil {
		cfg.tracerProvider = otel.GetTracerProvider()
	}
	if cfg.meterProvider == nil {
		cfg.meterProvider = otel.GetMeterProvider()
	}
	if cfg.propagators == nil {
		cfg.propagators = globalOrW3C{}
	}
	return cfg
}

// WithTracerProvider sets where spans go. Without it, and with nil, it is
// OpenTelemetry's global provider, even if that is set later.
func WithTracerProvider(provider trace.TracerProvider) Option {
	return func(cfg *config) { cfg.tracerProvider = provider }
}

// WithMeterProvider sets where metrics go: the pool's own, and the RPC metrics of
// the OpenTelemetry semantic conventions (rpc.client.call.duration). Without it,
// and with nil, it is
// OpenTelemetry's global provider, even if that is set later.
func WithMeterProvider(provider metric.MeterProvider) Option {
	return func(cfg *config) { cfg.meterProvider = provider }
}

// WithPropagators sets which headers carry the trace to the server. Without it,
// and with nil, they are those of OpenTelemetry's global propagator, or W3C Trace
// Context (traceparent, tracestate) as long as the program has set none: the
// global default writes no header, and every trace would end at the client. To
// send no header, give an empty propagation.NewCompositeTextMapPropagator().
func WithPropagators(propagators propagation.TextMapPropagator) Option {
	return func(cfg *config) { cfg.propagators = propagators }
}

// WithHealthChecks traces and measures RPCs of grpc.health.v1 too, pings among
// them if they are made for a caller with a span.
func WithHealthChecks() Option {
	return func(cfg *config) { cfg.healthChecks = true }
}

// WithHandlerOptions passes options to otelgrpc.NewClientHandler, such as
// otelgrpc.WithSpanAttributes. They come last and win; an otelgrpc.WithFilter
// takes the place of the one that leaves health checks out.
func WithHandlerOptions(opts ...otelgrpc.Option) Option {
	return func(cfg *config) { cfg.handlerOptions = append(cfg.handlerOptions, opts...) }
}

// globalOrW3C is OpenTelemetry's global propagator, or W3C Trace Context as long
// as the global one knows no header. It asks each time: a program may set the
// global one after it has made its factories.
type globalOrW3C struct{}

func (globalOrW3C) now() propagation.TextMapPropagator {
	if p := otel.GetTextMapPropagator(); len(p.Fields()) > 0 {
		return p
	}
	return propagation.TraceContext{}
}

func (g globalOrW3C) Inject(ctx context.Context, carrier propagation.TextMapCarrier) {
	g.now().Inject(ctx, carrier)
}

func (g globalOrW3C) Extract(ctx context.Context, carrier propagation.TextMapCarrier) context.Context {
	return g.now().Extract(ctx, carrier)
}

func (g globalOrW3C) Fields() []string { return g.now().Fields() }
