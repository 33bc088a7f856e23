package otelpool

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/davidwartell/go-grpcpool/shared"
)

// scopeName is the instrumentation scope of the pool's spans.
const scopeName = "github.com/davidwartell/go-grpcpool/otelpool"

// PoolNameKey is the attribute with the pool's name (see shared.WithName). It is left out
// for a pool without a name.
const PoolNameKey = attribute.Key("grpcpool.name")

// WithTracing returns an option of a pool that makes a span, in the caller's trace, for
// whatever the pool does for that caller:
//
//   - grpcpool.wait: Get waits for a connection. If it does not have to wait there is no
//     such span.
//   - grpcpool.dial: a connection is opened and tested.
//   - grpcpool.test: the existing connection is tested.
//
// A dial or test is the child of the wait that began it, and may outlive it if the caller
// gives up. Another caller that waits for the same dial or test has only a grpcpool.wait
// of its own.
//
// An RPC made on the pool makes no such span: it waits for a connection in gRPC, and that is
// part of the span that [WithInstrumentation] makes for it. (Over a factory that is not a
// grpcpool.ChannelFactory it waits as Get does.)
//
// A span whose operation fails records the error. What the pool does in the
// background, or for a caller without a span, makes no span.
//
// Of the options it uses only [WithTracerProvider]. It replaces any other
// shared.WithTracer of the same pool.
func WithTracing(opts ...Option) shared.Option {
	return shared.WithTracer(tracer{newConfig("WithTracing", opts).tracerProvider.Tracer(scopeName)})
}

type tracer struct {
	trace.Tracer
}

// Start implements shared.Tracer.
func (t tracer) Start(ctx context.Context, pool string, op shared.Op) (_ context.Context, end func(error)) {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return contextWithBackground(ctx), func(error) {}
	}
	var opts []trace.SpanStartOption
	if pool != "" {
		opts = append(opts, trace.WithAttributes(PoolNameKey.String(pool)))
	}
	ctx, span := t.Tracer.Start(ctx, "grpcpool."+string(op), opts...) //nolint:spancheck // the pool calls end
	return ctx, func(err error) {                                     //nolint:spancheck // as above
		if err != nil {
			span.RecordError(err)
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}
