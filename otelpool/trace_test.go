package otelpool_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/otelpool"
	"github.com/davidwartell/go-grpcpool/shared"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

func TestTheWaitAndTheDialAreSpansOfTheCallersTrace(t *testing.T) {
	client := newSide()
	opts := []otelpool.Option{otelpool.WithTracerProvider(client.provider)}
	server, ids := startServer(t)
	pool := newPool(t, ids, server.Addr(), []grpcpool.FactoryOption{otelpool.WithInstrumentation(opts...)}, otelpool.WithTracing(opts...))

	ctx, span := client.begin(t.Context())
	for range 2 { // the second need not wait
		conn, err := pool.Get(ctx)
		if err != nil {
			t.Fatal(err)
		}
		call(ctx, t, conn.Connection())
		conn.Return()
	}
	span.End()

	wait, dial := client.only(t, "grpcpool.wait"), client.only(t, "grpcpool.dial")
	wantChild(t, wait, span.SpanContext())
	wantChild(t, dial, wait.SpanContext())
	if got := len(client.named(callSpan)); got != 2 {
		t.Fatalf("%d spans of calls, want 2", got)
	}
	for _, sent := range client.named(callSpan) {
		wantChild(t, sent, span.SpanContext())
	}
	for _, own := range append(client.named("grpcpool.wait"), client.named("grpcpool.dial")...) {
		if got := own.Attributes(); len(got) != 1 || got[0] != attribute.String("grpcpool.name", "test") {
			t.Errorf("%s has the attributes %v", own.Name(), got)
		}
		if got := own.Status(); got.Code != codes.Unset {
			t.Errorf("%s has the status %v", own.Name(), got)
		}
	}
}

// It waits in gRPC, in its own span, as on a plain channel.
func TestTheSpanOfACallOnThePoolIncludesItsWaitForAConnection(t *testing.T) {
	for name, client := range map[string]func(*testing.T, *grpcpooltest.Server, ...grpc.DialOption) *watched{
		"the pool": newWatchedPool, "a plain channel": newWatchedChannel,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const away = 3 * time.Second
				server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
				w := client(t, server)
				server.Stop()
				time.AfterFunc(away, server.Start)
				ctx, span := w.spans.begin(t.Context())
				if _, err := testpb.NewBenchmarkServiceClient(w).UnaryCall(ctx, &testpb.SimpleRequest{}, grpc.WaitForReady(true)); err != nil {
					t.Error(err)
				}
				span.End()
				sent := w.spans.only(t, callSpan)
				wantChild(t, sent, span.SpanContext())
				if took := sent.EndTime().Sub(sent.StartTime()); took < away {
					t.Errorf("the span of a call that waited %v has %v", away, took)
				}
				if all := w.spans.recorder.Ended(); len(all) != 2 {
					t.Errorf("the spans are %q, want the caller's and the call's", names(all))
				}
				w.shutDown(t)
			})
		})
	}
}

// connectedOnly hides that a factory can make channels that are not connected.
type connectedOnly struct{ grpcpool.ConnectionFactory }

func TestACallWaitsInASpanOfThePoolIfTheFactoryMakesConnectedChannelsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := newSide()
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		factory, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), grpcpool.WithDialOptions(server.DialOptions()...))
		if err != nil {
			t.Fatal(err)
		}
		pool := shared.New(connectedOnly{factory}, time.Minute, otelpool.WithTracing(otelpool.WithTracerProvider(client.provider)))
		defer pool.Close()
		ctx, span := client.begin(t.Context())
		call(ctx, t, pool)
		span.End()
		wait := client.only(t, "grpcpool.wait")
		wantChild(t, wait, span.SpanContext())
		wantChild(t, client.only(t, "grpcpool.dial"), wait.SpanContext())
	})
}

func TestTheTestBeforeLendingIsASpanOfTheCallersTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := newSide()
		pool := inMemory(t, nil, otelpool.WithTracing(otelpool.WithTracerProvider(client.provider)))
		get := func(ctx context.Context) {
			conn, err := pool.Get(ctx)
			if err != nil {
				t.Fatal(err)
			}
			conn.Return()
		}
		get(t.Context())             // dials
		time.Sleep(10 * time.Second) // and nothing has proved the connection alive since
		ctx, span := client.begin(t.Context())
		get(ctx)
		span.End()
		wait := client.only(t, "grpcpool.wait")
		wantChild(t, wait, span.SpanContext())
		wantChild(t, client.only(t, "grpcpool.test"), wait.SpanContext())
	})
}

func TestADialThatFailsRecordsItsError(t *testing.T) {
	client := newSide()
	ids, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	errRefused := errors.New("the dialer refuses")
	dial := grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return nil, errRefused })
	pool := newPool(t, ids, "passthrough:///localhost", []grpcpool.FactoryOption{grpcpool.WithDialOptions(dial)},
		otelpool.WithTracing(otelpool.WithTracerProvider(client.provider)))

	ctx, span := client.begin(t.Context())
	_, err = pool.Get(ctx)
	span.End()
	if !errors.Is(err, grpcpool.ErrConnectionNotOK) {
		t.Fatalf("Get returned %v, want ErrConnectionNotOK", err)
	}
	for _, name := range []string{"grpcpool.wait", "grpcpool.dial"} {
		failed := client.only(t, name)
		if got := failed.Status(); got.Code != codes.Error || got.Description != err.Error() {
			t.Errorf("%s has the status %v, want the error %q", name, got, err)
		}
		if got := failed.Events(); len(got) != 1 || got[0].Name != "exception" {
			t.Errorf("%s has the events %v, want the error", name, got)
		}
	}
}

func TestACallerWithoutASpanMakesNone(t *testing.T) {
	client := newSide()
	server, ids := startServer(t)
	pool := newPool(t, ids, server.Addr(), nil, otelpool.WithTracing(otelpool.WithTracerProvider(client.provider)))
	conn, err := pool.Get(t.Context()) // waits, and dials
	if err != nil {
		t.Fatal(err)
	}
	conn.Return()
	call(t.Context(), t, pool)
	if got := client.recorder.Started(); len(got) != 0 {
		t.Errorf("%d spans, want none", len(got))
	}
}

func TestGetCostsNoMoreAllocationsWithTrace(t *testing.T) {
	server, ids := startServer(t)
	client := newSide()
	allocations := func(traced bool) float64 {
		var options []shared.Option
		if traced {
			options = append(options, otelpool.WithTracing(otelpool.WithTracerProvider(client.provider)))
		}
		pool := newPool(t, ids, server.Addr(), nil, options...)
		ctx, span := client.begin(t.Context())
		defer span.End()
		held, err := pool.Get(ctx) // while a lease is out Get does not wait
		if err != nil {
			t.Fatal(err)
		}
		defer held.Return()
		return testing.AllocsPerRun(1000, func() {
			conn, err := pool.Get(ctx)
			if err != nil {
				t.Fatal(err)
			}
			conn.Return()
		})
	}
	if without, with := allocations(false), allocations(true); with > without {
		t.Errorf("Get and Return allocate %v times with WithTracing and %v without", with, without)
	}
}
