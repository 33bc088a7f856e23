package otelpool

import (
	"context"
	"fmt"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Option is an option of [WithInstrumentation], [WithTracing] and [WithMetrics]. All three take the same
// options, so that a program can list them once. WithTracing uses only [WithTracerProvider],
// WithMetrics only [WithMeterProvider]; they ignore the others.
type Option func(*config)

type config struct {
	tracerProvider trace.TracerProvider // nil: OpenTelemetry's global one
	meterProvider  metric.MeterProvider // nil: OpenTelemetry's global one
	propagators    propagation.TextMapPropagator
	healthChecks   bool
	handlerOptions []otelgrpc.Option
}

// newConfig applies the options of the function of the given name.
func newConfig(name string, opts []Option) *config {
	cfg := &config{}
	for i, opt := range opts {
		if opt == nil {
			otel.Handle(fmt.Errorf("otelpool: %s: option %d of %d is nil", name, i+1, len(opts)))
			continue
		}
		opt(cfg)
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

// WithTracerProvider sets the provider of the tracers that make spans. The default, and
// the meaning of nil, is OpenTelemetry's global provider, even if the program sets it
// later.
func WithTracerProvider(provider trace.TracerProvider) Option {
	return func(cfg *config) { cfg.tracerProvider = provider }
}

// WithMeterProvider sets the provider of the meters that measure: the pool's metrics (see
// [WithMetrics]) and, with [WithInstrumentation], the RPC metrics of the OpenTelemetry semantic
// conventions (rpc.client.call.duration). The default, and the meaning of nil, is
// OpenTelemetry's global provider, even if the program sets it later.
func WithMeterProvider(provider metric.MeterProvider) Option {
	return func(cfg *config) { cfg.meterProvider = provider }
}

// WithPropagators sets which headers carry the trace to the server. The default, and the
// meaning of nil, is OpenTelemetry's global propagator or, as long as the program has set
// none, W3C Trace Context (traceparent, tracestate). OpenTelemetry's own default writes no
// header, so that every trace would end at the client. To send no header, use an empty
// propagation.NewCompositeTextMapPropagator().
func WithPropagators(propagators propagation.TextMapPropagator) Option {
	return func(cfg *config) { cfg.propagators = propagators }
}

// WithHealthChecks makes [WithInstrumentation] trace and measure RPCs of grpc.health.v1 too. That
// includes pings, if they are made for a caller with a span.
func WithHealthChecks() Option {
	return func(cfg *config) { cfg.healthChecks = true }
}

// WithHandlerOptions makes [WithInstrumentation] pass options to otelgrpc.NewClientHandler, such as
// otelgrpc.WithSpanAttributes. They come after this package's own and override them: an
// otelgrpc.WithFilter replaces the filter that leaves health checks out.
func WithHandlerOptions(opts ...otelgrpc.Option) Option {
	return func(cfg *config) {
		for i, opt := range opts {
			if opt == nil {
				otel.Handle(fmt.Errorf("otelpool: WithHandlerOptions: option %d of %d is nil", i+1, len(opts)))
				continue
			}
			cfg.handlerOptions = append(cfg.handlerOptions, opt)
		}
	}
}

// globalOrW3C is OpenTelemetry's global propagator, or W3C Trace Context as long as the
// global one writes no header. It looks each time, because a program may set the global
// one after it has made its factories.
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
