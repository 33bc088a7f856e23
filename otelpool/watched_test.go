package otelpool_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/otelpool"
	"github.com/davidwartell/go-grpcpool/shared"
)

// outcomes are calls by status code.
type outcomes map[string]int64

// codeNames are OpenTelemetry's names of the codes that calls end with in these tests.
var codeNames = map[codes.Code]string{
	codes.OK: "OK", codes.Canceled: "CANCELLED", codes.Unavailable: "UNAVAILABLE", codes.DeadlineExceeded: "DEADLINE_EXCEEDED",
	codes.FailedPrecondition: "FAILED_PRECONDITION",
}

// watched is a client whose calls are counted by all who can: by their callers, by otelgrpc
// in spans and in a histogram, and by the pool if it is one.
type watched struct {
	grpc.ClientConnInterface

	pool    *shared.Pool // nil for a plain channel
	close   func() error
	spans   side
	metrics meters

	mu   sync.Mutex // guards seen
	seen outcomes   // by the callers
}

func newWatched() (w *watched, telemetry []otelpool.Option) {
	w = &watched{spans: newSide(), metrics: newMeters(), seen: outcomes{}}
	return w, []otelpool.Option{otelpool.WithTracerProvider(w.spans.provider), w.metrics.option()}
}

// newWatchedPool is a pool with the whole instrumentation.
func newWatchedPool(t *testing.T, server *grpcpooltest.Server, opts ...grpc.DialOption) *watched {
	t.Helper()
	w, telemetry := newWatched()
	factory, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(),
		grpcpool.WithDialOptions(server.DialOptions(opts...)...), otelpool.WithInstrumentation(telemetry...))
	if err != nil {
		t.Fatal(err)
	}
	w.pool = shared.New(factory, time.Minute, shared.WithName("orders"), otelpool.WithTracing(telemetry...), otelpool.WithMetrics(telemetry...))
	w.ClientConnInterface, w.close = w.pool, w.pool.Close
	return w
}

// newWatchedChannel is a plain channel with otelgrpc.
func newWatchedChannel(t *testing.T, server *grpcpooltest.Server, opts ...grpc.DialOption) *watched {
	t.Helper()
	w, _ := newWatched()
	handler := otelgrpc.NewClientHandler(otelgrpc.WithTracerProvider(w.spans.provider), otelgrpc.WithMeterProvider(w.metrics))
	cc, err := grpc.NewClient(server.Target(), append(server.DialOptions(opts...), grpc.WithStatsHandler(handler))...)
	if err != nil {
		t.Fatal(err)
	}
	w.ClientConnInterface, w.close = cc, cc.Close
	return w
}

// note counts a call as its caller sees it.
func (w *watched) note(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[codeNames[status.Code(err)]]++
}

// traced are the spans of calls by their code.
func (w *watched) traced() outcomes {
	got := outcomes{}
	for _, span := range w.spans.recorder.Ended() {
		for _, a := range span.Attributes() {
			if a.Key == otelpool.StatusCodeKey {
				got[a.Value.AsString()]++
			}
		}
	}
	return got
}

// measured are the calls in a metric, by code.
func (w *watched) measured(t *testing.T, name string) outcomes {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := w.metrics.reader.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	got := outcomes{}
	add := func(set attribute.Set, n int64) {
		code, _ := set.Value(otelpool.StatusCodeKey)
		if got[code.AsString()] += n; n == 0 {
			delete(got, code.AsString())
		}
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != name {
				continue
			}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, p.Value)
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, int64(p.Count))
				}
			}
		}
	}
	return got
}

// counted are the calls in the pool's own count, by code.
func (w *watched) counted() outcomes {
	got := outcomes{}
	for code, n := range w.pool.Stats().Calls {
		got[codeNames[code]] += int64(n)
	}
	return got
}

// shutDown closes the client.
func (w *watched) shutDown(t *testing.T) {
	t.Helper()
	if err := w.close(); err != nil {
		t.Error(err)
	}
}

// want fails unless all who count the calls of a client agree with its callers.
func (w *watched) want(t *testing.T, who string) {
	t.Helper()
	counts := map[string]outcomes{"spans": w.traced(), "rpc.client.call.duration": w.measured(t, "rpc.client.call.duration")}
	if w.pool != nil {
		counts["grpcpool.call.count"], counts["Stats"] = w.measured(t, "grpcpool.call.count"), w.counted()
	}
	for where, got := range counts {
		if diff := cmp.Diff(w.seen, got); diff != "" {
			t.Errorf("%s: want what its callers have seen (-), got in %s (+):\n%s", who, where, diff)
		}
	}
	t.Logf("%s: %v", who, w.seen)
}
