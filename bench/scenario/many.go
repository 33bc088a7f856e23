package scenario

import (
	"context"
	"fmt"
	"runtime"
	"time"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/bench/cpu"
	"github.com/davidwartell/go-grpcpool/bench/peers"
)

func many() *Scenario {
	return &Scenario{
		Name: "many", Title: "A thousand targets in one process",
		Text:   "1,000 clients in one process, the server in another. Per client: heap and stacks, and goroutines, after it was made (unused) and after its first call, with one idle connection; and the CPU time of this process that an idle connection costs each second. Peers with N channels cost N times plain.",
		Peers:  []string{peers.Pool, peers.Scale, peers.Plain, peers.Defaults, peers.GCP},
		Units:  []string{"unused-B", "unused-goroutines", "idle-B", "idle-goroutines", "idle-cpu-us/s"},
		Rounds: 3,
		run:    runMany,
	}
}

func runMany(ctx context.Context, e *Env) error {
	server, err := startChild(ctx)
	if err != nil {
		return err
	}
	defer server.stop()
	for _, p := range e.peers {
		n := either(e, 1000, 10)
		metrics, err := holdMany(ctx, n, either(e, 2*time.Second, 100*time.Millisecond), func() (peers.Client, error) {
			return p.New(peers.Config{Target: "passthrough:///" + server.address, Size: 10})
		})
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		e.record(fmt.Sprintf("clients=%d", n), p.Name, metrics...)
	}
	return nil
}

func holdMany(ctx context.Context, n int, idle time.Duration, dial func() (peers.Client, error)) ([]Metric, error) {
	clients := make([]peers.Client, 0, n)
	defer func() {
		for _, c := range clients {
			c.Close()
		}
	}()
	before := take()
	for range n {
		c, err := dial()
		if err != nil {
			return nil, err
		}
		clients = append(clients, c)
	}
	unused := take()
	for _, c := range clients {
		if _, err := testpb.NewTestServiceClient(c).EmptyCall(ctx, &testpb.Empty{}); err != nil {
			return nil, fmt.Errorf("a client's first call: %w", err)
		}
	}
	sleepUntil(ctx, time.Now().Add(idle/2)) // what the dials have left ends
	used := take()
	sleepUntil(ctx, time.Now().Add(idle))
	busy := cpu.Time() - used.cpu
	per := 1 / float64(n)
	return []Metric{
		{(unused.bytes - before.bytes) * per, "unused-B"},
		{(unused.goroutines - before.goroutines) * per, "unused-goroutines"},
		{(used.bytes - before.bytes) * per, "idle-B"},
		{(used.goroutines - before.goroutines) * per, "idle-goroutines"},
		{float64(busy.Microseconds()) * per / idle.Seconds(), "idle-cpu-us/s"},
	}, nil
}

// footprint is what the process holds.
type footprint struct {
	bytes, goroutines float64
	cpu               time.Duration
}

func take() footprint {
	runtime.GC()
	runtime.GC() // what sync.Pools hold goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return footprint{float64(m.HeapAlloc + m.StackInuse), float64(runtime.NumGoroutine()), cpu.Time()}
}
