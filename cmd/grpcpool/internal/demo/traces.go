package demo

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc/filters"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
)

// traces is the tracing of both sides, which are connected only through the headers of a
// call. Only the trace that begin starts is sampled.
type traces struct {
	client, server *sdktrace.TracerProvider
	caller         *sdktrace.TracerProvider // also of the client, but samples all

	mu     sync.Mutex // guards what follows
	spans  []sdktrace.ReadOnlySpan
	served chan struct{} // closed when the server has ended a span
}

func newTraces() *traces {
	t := &traces{served: make(chan struct{})}
	record := sdktrace.WithSpanProcessor(t)
	sampled := sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample()))
	t.client = sdktrace.NewTracerProvider(record, sampled)
	t.server = sdktrace.NewTracerProvider(record, sampled)
	t.caller = sdktrace.NewTracerProvider(record)
	return t
}

func (t *traces) serverOption() grpc.ServerOption {
	return grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(t.server),
		otelgrpc.WithPropagators(propagation.TraceContext{}),
		otelgrpc.WithFilter(filters.Not(filters.HealthCheck())),
	))
}

// begin starts a trace.
func (t *traces) begin(ctx context.Context) (context.Context, trace.Span) {
	return t.caller.Tracer("demo").Start(ctx, "demo.first_call") //nolint:spancheck // the caller ends it
}

// OnEnd and the next three methods implement sdktrace.SpanProcessor.
func (t *traces) OnEnd(s sdktrace.ReadOnlySpan) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spans = append(t.spans, s)
	if s.SpanKind() == trace.SpanKindServer {
		select {
		case <-t.served:
		default:
			close(t.served)
		}
	}
}

func (*traces) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (*traces) ForceFlush(context.Context) error                { return nil }
func (*traces) Shutdown(context.Context) error                  { return nil }

// of returns what both sides have recorded of a trace. It waits for the server to end its
// span.
func (t *traces) of(ctx context.Context, id trace.TraceID) (Trace, error) {
	limit := time.NewTimer(grace)
	defer limit.Stop()
	select {
	case <-t.served:
	case <-limit.C:
	case <-ctx.Done():
		return Trace{}, context.Cause(ctx)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := Trace{ID: id.String()}
	children := make(map[trace.SpanID][]sdktrace.ReadOnlySpan)
	for _, s := range t.spans {
		if s.SpanContext().TraceID() == id {
			children[s.Parent().SpanID()] = append(children[s.Parent().SpanID()], s)
		}
	}
	seen.add(children, trace.SpanID{}, 0)
	seen.SeenByBoth = seen.ClientSpans > 0 && seen.ServerSpans > 0
	return seen, nil
}

// add adds the spans below parent, recursively.
func (t *Trace) add(children map[trace.SpanID][]sdktrace.ReadOnlySpan, parent trace.SpanID, depth int) {
	slices.SortFunc(children[parent], func(a, b sdktrace.ReadOnlySpan) int {
		return cmp.Compare(a.StartTime().UnixNano(), b.StartTime().UnixNano())
	})
	for _, s := range children[parent] {
		span := Span{
			Name: s.Name(), Side: "client", ID: s.SpanContext().SpanID().String(),
			Took: Milliseconds(s.EndTime().Sub(s.StartTime())), Depth: depth,
		}
		if s.Parent().IsValid() {
			span.Parent = s.Parent().SpanID().String()
		}
		if s.SpanKind() == trace.SpanKindServer {
			span.Side = "server"
			t.ServerSpans++
		} else {
			t.ClientSpans++
		}
		t.Spans = append(t.Spans, span)
		t.add(children, s.SpanContext().SpanID(), depth+1)
	}
}
