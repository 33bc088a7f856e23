package otelpool_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/otelpool"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

func TestAWaitIsMeasuredWithItsResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newMeters(), &hanging{}
		p := shared.New(f, 0, otelpool.WithMetrics(m.option()))
		inTime, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		given, giveUp := context.WithCancel(t.Context())
		defer giveUp()
		var callers sync.WaitGroup
		for _, ctx := range []context.Context{inTime, given, t.Context()} {
			callers.Go(func() {
				if _, err := p.Get(ctx); err == nil {
					t.Error("Get has got a lease of a channel that never came")
				}
			})
		}
		time.Sleep(2 * time.Second)
		giveUp()
		synctest.Wait()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		callers.Wait()
		wantFigures(t, m.figures(t), map[string]int64{
			"grpcpool.connection.wait_time{timeout}": 1, "grpcpool.connection.wait_time{canceled}": 1, "grpcpool.connection.wait_time{shutdown}": 1,
		})
	})
}

// A dial that the pool's own timeout ended is no timeout of the caller's.
func TestAWaitForADialThatRanOutOfTimeHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeters()
		p := shared.New(&hanging{}, 0, shared.WithDialTimeout(time.Second), otelpool.WithMetrics(m.option()))
		if _, err := p.Get(t.Context()); err == nil {
			t.Error("Get has got a lease of a channel that never came")
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		wantFigures(t, m.figures(t), map[string]int64{"grpcpool.connection.wait_time{failed}": 1, "grpcpool.connection.timeouts": 0})
	})
}

// Calls wait for a stream in the channel, which knows them, and for a connection in gRPC,
// which tells nobody. No call waits in the pool.
func TestCallsThatWaitForAStreamArePendingAndThoseThatWaitForAConnectionHaveLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(), grpcpooltest.WithStreamLimit(1), grpcpooltest.WithEmptyCall(untilItEnds))
		factory, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(),
			grpcpool.WithDialOptions(server.DialOptions(scale.WithMaxConnections(1))...))
		if err != nil {
			t.Fatal(err)
		}
		m := newMeters()
		p := shared.New(factory, 0, otelpool.WithMetrics(m.option()))
		var running sync.WaitGroup
		callAll := func() {
			for i := range 5 {
				running.Go(func() {
					time.Sleep(time.Duration(i) * time.Millisecond)
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(5-i)*time.Second) // the first one has the stream to the end
					defer cancel()
					_, err := testpb.NewTestServiceClient(p).EmptyCall(ctx, &testpb.Empty{}, grpc.WaitForReady(true))
					if status.Code(err) != codes.DeadlineExceeded {
						t.Errorf("the call ended with %v", err)
					}
				})
			}
			time.Sleep(500 * time.Millisecond)
		}
		callAll()
		wantFigures(t, m.figures(t), map[string]int64{
			"grpcpool.connection.pending_requests": 4, "grpcpool.stream.active": 1, "grpcpool.lease.count": 5,
		})
		running.Wait()
		server.Stop()
		synctest.Wait() // for the channel, which has lost its connection
		callAll()
		wantFigures(t, m.figures(t), map[string]int64{
			"grpcpool.connection.pending_requests": 0, "grpcpool.stream.active": 0, "grpcpool.lease.count": 5,
		})
		running.Wait()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		got := m.figures(t)
		wantFigures(t, got, map[string]int64{
			"grpcpool.call.count{DEADLINE_EXCEEDED}": 10, "grpcpool.connection.timeouts": 4, "grpcpool.connection.use_time": 10,
		})
		for name := range got {
			if strings.HasPrefix(name, "grpcpool.connection.wait_time") {
				t.Errorf("%s is there, and no caller has waited in Get", name)
			}
		}
	})
}

// untilItEnds is a call that ends with its context.
func untilItEnds(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}
