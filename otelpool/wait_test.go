package otelpool_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/davidwartell/go-grpcpool/otelpool"
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
