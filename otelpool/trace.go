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

// PoolNameKey is the attribute that holds the pool's name (see shared.WithName).
// A pool without a name leaves it out.
const PoolNameKey = attribute.Key("grpcpool.name")

// Trace makes what a pool does for a caller appear in that caller's trace:
//
//   - grpcpool.wait: Get, or an RPC made on the pool, waits for a connection. There
//     is none when it need not wait.
//   - grpcpool.dial: a connection is opened and tested.
//   - grpcpool.test: the connection that there is is tested.
//
// The dial or test is a child of the wait that began it. Other callers may wait
// for the same one: they have only their own grpcpool.wait. It may outlive the
// wait, if the caller gives up. What fails records its error. What the pool does
// for a caller without a span, or for nobody, makes no span.
//
// Trace takes the place of any other shared.WithTracer of the same pool.
func Trace(opts ...Option) shared.Option {
	return shared.WithTracer(tracer{newConfig(opts).tracerProvider.Tracer(scopeName)})
}

type tracer struct {
	trace.Tracer
}

// Start implements shared.Tracer.
func (t tracer) Start(ctx context.Context, pool string, op shared.Op) (_ context.Context, end func(error)) {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return markForNobody(ctx), func(error) {}
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
