package demo_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/demo"
)

func TestAWatcherIsToldOfEveryPhaseAndOfProgress(t *testing.T) {
	var ticks atomic.Int64
	var connected atomic.Bool
	var ended []demo.Phase
	watcher := demo.Watcher{
		Tick: func(p demo.Progress) {
			ticks.Add(1)
			if p.Connections == 1 && p.Calls > 0 {
				connected.Store(true)
			}
		},
		Ended: func(p demo.Phase, _ *demo.Result) { ended = append(ended, p) },
	}
	result, err := demo.Run(t.Context(), demo.Config{
		Callers: 2, Duration: time.Second, Payload: 0, Outage: 100 * time.Millisecond,
		Idle: time.Second, RecoverWithin: 30 * time.Second,
	}, watcher)
	if err != nil {
		t.Fatal(err)
	}
	if !result.Kept {
		t.Errorf("the promises are %+v", result.Promises)
	}
	if want := []demo.Phase{demo.PhaseLoad, demo.PhaseOutage, demo.PhaseIdle, demo.PhaseShutdown}; len(ended) != 4 || [4]demo.Phase(ended) != [4]demo.Phase(want) {
		t.Errorf("the phases that ended are %v, want %v", ended, want)
	}
	if ticks.Load() == 0 || !connected.Load() {
		t.Errorf("%d ticks, one of them with a connection and calls: %v", ticks.Load(), connected.Load())
	}
}
