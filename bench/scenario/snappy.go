package scenario

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strings"
	"time"

	"google.golang.org/grpc/encoding"

	"github.com/davidwartell/go-grpcpool/bench/compressors"
	"github.com/davidwartell/go-grpcpool/bench/cpu"
)

func snappy() *Scenario {
	return &Scenario{
		Name: "snappy", Title: "Compressors: a message there and back",
		Text:  "Messages of a kind in turn, each through a compressor and back in gRPC's buffers, one at a time and without a network. The CPU time is user and system time of the whole process for a message, garbage collection included; beside it the compressed length, as a mean over the messages of the kind, and the allocations.\n\n" + compressorsTable(),
		Peers: []string{compressors.Ours, compressors.Mostynb, compressors.Original, compressors.S2Stream, compressors.Gzip},
		Units: []string{unitCPU, "wire-B/op", unitAllocs},
		run:   runSnappy,
	}
}

// compressorsTable is what the report's table of peers is for the others.
func compressorsTable() string {
	var b strings.Builder
	b.WriteString("| compressor | is, and how it is set |\n|---|---|")
	for _, c := range compressors.All() {
		fmt.Fprintf(&b, "\n| %s | %s |", c.Name, c.Settings)
	}
	return b.String()
}

func runSnappy(ctx context.Context, e *Env) error {
	for _, load := range compressors.Payloads() {
		messages := load.First(either(e, math.MaxInt, 1))
		for _, c := range e.compressors {
			if err := ctx.Err(); err != nil {
				return err //nolint:wrapcheck // Run does
			}
			metrics, err := roundTrips(c.Codec, messages, either(e, 200*time.Millisecond, time.Millisecond))
			if err != nil {
				return fmt.Errorf("%s, %s: %w", c.Name, load.Name, err)
			}
			e.record("payload="+load.Name, c.Name, metrics...)
		}
	}
	// What sync.Pools still hold goes with the second, so that the next scenario
	// begins with the heap that it would have without this one.
	runtime.GC()
	runtime.GC()
	return nil
}

// roundTrips takes all the messages through a compressor and back, over and over for
// so long: whole passes, so that each message counts as much as another. There is a
// pass before that which fills the pools, and in which what comes back is looked at.
func roundTrips(c encoding.Compressor, messages [][]byte, length time.Duration) ([]Metric, error) {
	runtime.GC() // what others have left
	for _, message := range messages {
		if _, err := compressors.CheckedRoundTrip(c, message); err != nil {
			return nil, err //nolint:wrapcheck // runSnappy does
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	used := cpu.Time()
	ops, wire := 0, 0
	for begin := time.Now(); ops == 0 || time.Since(begin) < length; {
		for _, message := range messages {
			n, got, err := compressors.RoundTrip(c, message)
			if err != nil {
				return nil, err //nolint:wrapcheck // runSnappy does
			}
			got.Free()
			wire += n
		}
		ops += len(messages)
	}
	used = cpu.Time() - used
	runtime.ReadMemStats(&after)
	return []Metric{
		{float64(used.Nanoseconds()) / 1000 / float64(ops), unitCPU},
		{float64(wire) / float64(ops), "wire-B/op"},
		{float64(after.Mallocs-before.Mallocs) / float64(ops), unitAllocs},
	}, nil
}
