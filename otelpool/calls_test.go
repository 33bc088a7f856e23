package otelpool_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/otelpool"
	"github.com/davidwartell/go-grpcpool/shared"
)

const (
	callers = 100 // of each client
	forLong = 22 * time.Second
	outage  = 10 * time.Second
)

type callFunc func(context.Context, grpc.ClientConnInterface) error

func unaryCall(ctx context.Context, cc grpc.ClientConnInterface) error {
	_, err := testpb.NewTestServiceClient(cc).EmptyCall(ctx, &testpb.Empty{})
	return err
}

// streamingCall sends two messages, waits for an answer to each, and reads to the end.
func streamingCall(ctx context.Context, cc grpc.ClientConnInterface) error {
	stream, err := testpb.NewTestServiceClient(cc).FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for range 2 {
		if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if _, err := stream.Recv(); err != nil {
			return err
		}
		time.Sleep(15 * time.Millisecond)
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// takeAMoment is what the server does in a unary call.
func takeAMoment(ctx context.Context) error {
	select {
	case <-time.After(30 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// crowd has callers call all of the clients, each about once a second.
func crowd(t *testing.T, call callFunc, timeout time.Duration, clients ...*watched) {
	t.Helper()
	end := time.Now().Add(forLong)
	var all sync.WaitGroup
	for i := range callers {
		for _, w := range clients {
			all.Go(func() {
				time.Sleep(time.Duration(i) * 2 * time.Millisecond) // not all at once
				for time.Now().Before(end) {
					ctx, cancel := context.WithTimeout(t.Context(), timeout)
					w.note(call(ctx, w))
					cancel()
					time.Sleep(time.Second)
				}
			})
		}
	}
	for _, w := range clients {
		if w.pool != nil {
			all.Go(func() { w.borrowUntil(t.Context(), end) })
		}
	}
	all.Wait()
	synctest.Wait() // for those who count
}

// borrowUntil borrows the channel now and then, so that the pool tests it, and finds out that
// there is no connection, while calls are made.
func (w *watched) borrowUntil(ctx context.Context, end time.Time) {
	for time.Now().Before(end) {
		if conn, err := w.pool.Get(ctx); err == nil {
			conn.Return()
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Who reads a dashboard in an outage must not see fewer failures there than callers do. A
// plain channel beside the pool shows that the figures can agree.
func TestAllWhoCountTheCallsOfAnOutageAgree(t *testing.T) {
	stopped := func(server *grpcpooltest.Server, _ *grpcpooltest.Link) (end func()) {
		server.Stop()
		return server.Start
	}
	blackhole := func(_ *grpcpooltest.Server, link *grpcpooltest.Link) (end func()) {
		link.Blackhole()
		return link.Heal
	}
	const later = 4*time.Second + time.Microsecond // no call begins then
	for name, test := range map[string]struct {
		call    callFunc
		timeout time.Duration // of each call
		begin   func(*grpcpooltest.Server, *grpcpooltest.Link) (end func())
		after   time.Duration // when the outage begins
		want    string        // how many calls end
	}{
		"calls":                      {unaryCall, 3 * time.Second, stopped, later, "UNAVAILABLE"},
		"streams":                    {streamingCall, 3 * time.Second, stopped, later, "UNAVAILABLE"},
		"from the first call on":     {unaryCall, 3 * time.Second, stopped, 0, "UNAVAILABLE"},
		"from the first stream on":   {streamingCall, 3 * time.Second, stopped, 0, "UNAVAILABLE"},
		"calls behind a blackhole":   {unaryCall, 200 * time.Millisecond, blackhole, later, "DEADLINE_EXCEEDED"},
		"streams behind a blackhole": {streamingCall, 200 * time.Millisecond, blackhole, later, "DEADLINE_EXCEEDED"},
		"a blackhole from the start": {unaryCall, 200 * time.Millisecond, blackhole, 0, "DEADLINE_EXCEEDED"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(), grpcpooltest.WithEmptyCall(takeAMoment))
				link := grpcpooltest.NewLink(server.Dial)
				pool, plain := newWatchedPool(t, server, link.DialOption()), newWatchedChannel(t, server, link.DialOption())
				begin := func() { time.AfterFunc(outage, test.begin(server, link)) }
				if test.after == 0 {
					begin()
				} else {
					time.AfterFunc(test.after, begin)
				}
				crowd(t, test.call, test.timeout, pool, plain)
				pool.shutDown(t)
				plain.shutDown(t)
				for who, w := range map[string]*watched{"the pool": pool, "the plain channel": plain} {
					w.want(t, who)
					if w.seen[test.want] < callers || w.seen["OK"] < callers {
						t.Errorf("%s: want many calls that end OK, and many %s: %v", who, test.want, w.seen)
					}
				}
			})
		})
	}
}

// gRPC lets no call of a closed channel begin, so otelgrpc does not see one. The pool does.
func TestCallsOnAClosedPoolAreCounted(t *testing.T) {
	for name, connected := range map[string]bool{"that was connected": true, "that was never used": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
				pool, plain := newWatchedPool(t, server), newWatchedChannel(t, server)
				before := outcomes{}
				for _, w := range []*watched{pool, plain} {
					if connected {
						w.note(unaryCall(t.Context(), w))
						before = outcomes{"OK": 1}
					}
					w.shutDown(t)
					for range 10 {
						w.note(unaryCall(t.Context(), w))
						w.note(streamingCall(t.Context(), w))
					}
				}
				synctest.Wait()
				if diff := cmp.Diff(plain.seen, pool.seen); diff != "" || pool.seen["CANCELLED"] != 20 {
					t.Errorf("callers of the plain channel have seen (-), of the pool (+):\n%s", diff)
				}
				for where, got := range map[string]outcomes{"grpcpool.call.count": pool.measured(t, "grpcpool.call.count"), "Stats": pool.counted()} {
					if diff := cmp.Diff(pool.seen, got); diff != "" {
						t.Errorf("want what the callers have seen (-), got in %s (+):\n%s", where, diff)
					}
				}
				for who, w := range map[string]*watched{"the pool": pool, "the plain channel": plain} {
					for where, got := range map[string]outcomes{"spans": w.traced(), "rpc.client.call.duration": w.measured(t, "rpc.client.call.duration")} {
						if diff := cmp.Diff(before, got); diff != "" {
							t.Errorf("%s: want only what was before Close (-), got in %s (+):\n%s", who, where, diff)
						}
					}
				}
			})
		})
	}
}

func TestCallsAreAllCountedWhenCloseReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(), grpcpooltest.WithEmptyCall(takeAMoment))
		pool := newWatchedPool(t, server)
		var running sync.WaitGroup
		for range callers {
			running.Go(func() { pool.note(unaryCall(t.Context(), pool)) })
			running.Go(func() { pool.note(streamingCall(t.Context(), pool)) })
		}
		synctest.Wait()
		pool.shutDown(t) // waits for them
		got := pool.measured(t, "grpcpool.call.count")
		running.Wait()
		if diff := cmp.Diff(pool.seen, got); diff != "" || pool.seen["OK"] != 2*callers {
			t.Errorf("want what the callers have seen (-), got (+):\n%s", diff)
		}
	})
}

// A call that the pool has to fail is a call, too: over a factory that makes connected
// channels only, or if the arguments of New were mistakes.
func TestCallsThatGetNoChannelAreCounted(t *testing.T) {
	for name, test := range map[string]struct {
		factory grpcpool.ConnectionFactory
		want    string
	}{
		"no connection": {&hanging{}, "DEADLINE_EXCEEDED"},
		"no factory":    {nil, "FAILED_PRECONDITION"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, telemetry := newWatched()
				w.pool = shared.New(test.factory, 0, otelpool.WithMetrics(telemetry...))
				for _, call := range []callFunc{unaryCall, streamingCall} {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					w.note(call(ctx, w.pool))
					cancel()
				}
				if err := w.pool.Close(); err != nil {
					t.Error(err)
				}
				w.note(unaryCall(t.Context(), w.pool))
				if diff := cmp.Diff(w.seen, w.measured(t, "grpcpool.call.count")); diff != "" || w.seen[test.want] < 2 {
					t.Errorf("want what the callers have seen (-), got (+):\n%s", diff)
				}
			})
		})
	}
}

// The names are those that otelgrpc has for the same codes, as far as gRPC has them.
func TestCallsAreCountedByTheNameOfTheirCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := codes.OK
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(), grpcpooltest.WithEmptyCall(func(context.Context) error {
			return status.Error(next, "as the test wants it")
		}))
		pool := newWatchedPool(t, server)
		for ; next <= codes.Unauthenticated; next++ {
			if got := status.Code(unaryCall(t.Context(), pool)); got != next {
				t.Errorf("the call ended with %v, want %v", got, next)
			}
		}
		got := pool.measured(t, "grpcpool.call.count")
		if diff := cmp.Diff(pool.measured(t, "rpc.client.call.duration"), got); diff != "" || len(got) != 17 {
			t.Errorf("otelgrpc has (-), the pool has (+):\n%s", diff)
		}
		for _, next = range []codes.Code{17, 99, 1 << 31} {
			_ = unaryCall(t.Context(), pool) // its error is as the server has it
		}
		if got := pool.measured(t, "grpcpool.call.count"); len(got) != 17 || got["UNKNOWN"] != 1+3 {
			t.Errorf("calls whose codes gRPC does not know made series of their own, or are not UNKNOWN: %v", got)
		}
		pool.shutDown(t)
	})
}

// observedMeters tells when a pool is no longer observed.
type observedMeters struct {
	metric.MeterProvider

	unregistered chan<- struct{}
}

type observedMeter struct {
	metric.Meter

	unregistered chan<- struct{}
}

type observation struct {
	metric.Registration

	unregistered chan<- struct{}
}

func (p observedMeters) Meter(name string, opts ...metric.MeterOption) metric.Meter {
	return observedMeter{p.MeterProvider.Meter(name, opts...), p.unregistered}
}

func (m observedMeter) RegisterCallback(f metric.Callback, instruments ...metric.Observable) (metric.Registration, error) {
	r, err := m.Meter.RegisterCallback(f, instruments...)
	return observation{r, m.unregistered}, err
}

func (o observation) Unregister() error {
	defer close(o.unregistered)
	return o.Registration.Unregister()
}

// A program may make and close pools as long as it runs. What they counted stays.
func TestAMeterKeepsTheCountsOfAClosedPoolAndNotThePool(t *testing.T) {
	m, unregistered := newMeters(), make(chan struct{})
	callAndClose := func() {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		factory, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), grpcpool.WithDialOptions(server.DialOptions()...))
		if err != nil {
			t.Fatal(err)
		}
		p := shared.New(factory, 0, otelpool.WithMetrics(otelpool.WithMeterProvider(observedMeters{m, unregistered})))
		for range 3 {
			if err := unaryCall(t.Context(), p); err != nil {
				t.Error(err)
			}
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	callAndClose()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for late := time.After(10 * time.Second); ; {
		runtime.GC()
		select {
		case <-unregistered:
			wantFigures(t, m.figures(t), map[string]int64{"grpcpool.call.count{OK}": 3})
			return
		case <-again.C:
		case <-late:
			t.Fatal("the meter still has the pool")
		}
	}
}
