package snappy_test

import (
	"flag"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/encoding"

	"github.com/davidwartell/go-grpcpool/bench/compressors"
	"github.com/davidwartell/go-grpcpool/bench/cpu"
)

// round turns the order of the peers. Rounds are runs of the whole program, so that
// noise of the machine falls on all peers alike.
var round = flag.Int("round", 0, "number of this round; it rotates the order of the peers")

func inTurn() []peer {
	k := *round % len(peers)
	return slices.Concat(peers[k:], peers[:k])
}

// BenchmarkRoundTrip is a message through a compressor and back, in gRPC's buffers,
// without a network: different messages of a kind in turn. cpu-ns/op is user and system
// time of the whole process, garbage collection included.
func BenchmarkRoundTrip(b *testing.B) {
	for _, load := range payloads {
		for _, p := range inTurn() {
			b.Run("payload="+load.name+"/peer="+p.name, func(b *testing.B) {
				benchmarkRoundTrip(b, p, load.messages)
			})
		}
	}
}

// BenchmarkRoundTripRepeated is BenchmarkRoundTrip with one message of each kind, sent
// over and over.
func BenchmarkRoundTripRepeated(b *testing.B) {
	for _, load := range payloads {
		for _, p := range inTurn() {
			b.Run("payload="+load.name+"/peer="+p.name, func(b *testing.B) {
				benchmarkRoundTrip(b, p, load.messages[:1])
			})
		}
	}
}

func benchmarkRoundTrip(b *testing.B, c encoding.Compressor, messages [][]byte) {
	b.Helper()
	wire := 0
	for _, message := range messages {
		n, err := compressors.CheckedRoundTrip(c, message)
		if err != nil {
			b.Fatal(err)
		}
		wire += n
	}
	b.SetBytes(int64(len(messages[0])))
	b.ReportAllocs()
	start := cpu.Time()
	for i := 0; b.Loop(); i++ {
		_, got, err := compressors.RoundTrip(c, messages[i%len(messages)])
		if err != nil {
			b.Fatal(err)
		}
		got.Free()
	}
	reportCPU(b, start)
	b.ReportMetric(float64(wire)/float64(len(messages)), "wire-B/op")
}

func reportCPU(b *testing.B, start time.Duration) {
	b.Helper()
	b.ReportMetric(float64(cpu.Time()-start)/float64(b.N), "cpu-ns/op")
}
