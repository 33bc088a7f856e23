package snappy_test

import (
	"bytes"
	"flag"
	"io"
	"slices"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// round turns the order of the peers. Rounds are runs of the whole program, so that
// noise of the machine falls on all peers alike.
var round = flag.Int("round", 0, "number of this round; it rotates the order of the peers")

func inTurn() []peer {
	k := *round % len(peers)
	return slices.Concat(peers[k:], peers[:k])
}

// maxMessage is the limit a receiver has set.
const maxMessage = 4 << 20

// frameSize is how gRPC's transport cuts a message.
const frameSize = 16 << 10

// compress does what gRPC does with a message to be sent.
func compress(c encoding.Compressor, message []byte) (mem.BufferSlice, error) {
	var out mem.BufferSlice
	z, err := c.Compress(mem.NewWriter(&out, mem.DefaultBufferPool()))
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(message); err != nil {
		return nil, err
	}
	return out, z.Close()
}

// frames cuts sent data as it would arrive, without copying it, so that only the
// compressors are measured.
func frames(sent mem.BufferSlice) mem.BufferSlice {
	received := make(mem.BufferSlice, 0, 2+sent.Len()/frameSize+len(sent))
	for _, b := range sent {
		for b.Len() > frameSize {
			var head mem.Buffer
			head, b = mem.SplitUnsafe(b, frameSize)
			received = append(received, head)
		}
		received = append(received, b)
	}
	return received
}

// decompress does what gRPC does with a message that has come.
func decompress(c encoding.Compressor, received mem.BufferSlice) (mem.BufferSlice, error) {
	defer received.Free()
	r, err := c.Decompress(received.Reader())
	if err != nil {
		return nil, err
	}
	if closer, ok := r.(io.Closer); ok {
		defer closer.Close()
	}
	return mem.ReadAll(io.LimitReader(r, maxMessage+1), mem.DefaultBufferPool())
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
		wire += checkedRoundTrip(b, c, message)
	}
	b.SetBytes(int64(len(messages[0])))
	b.ReportAllocs()
	start := cpuTime()
	for i := 0; b.Loop(); i++ {
		_, got, err := roundTrip(c, messages[i%len(messages)])
		if err != nil {
			b.Fatal(err)
		}
		got.Free()
	}
	reportCPU(b, start)
	b.ReportMetric(float64(wire)/float64(len(messages)), "wire-B/op")
}

// roundTrip returns the length of the compressed message, and what became of it.
func roundTrip(c encoding.Compressor, message []byte) (wire int, got mem.BufferSlice, err error) {
	sent, err := compress(c, message)
	if err != nil {
		return 0, nil, err
	}
	wire = sent.Len()
	got, err = decompress(c, frames(sent))
	return wire, got, err
}

func checkedRoundTrip(b *testing.B, c encoding.Compressor, message []byte) int {
	b.Helper()
	wire, got, err := roundTrip(c, message)
	if err != nil {
		b.Fatal(err)
	}
	defer got.Free()
	if !bytes.Equal(got.Materialize(), message) {
		b.Fatal("the message changed on its way")
	}
	return wire
}

// cpuTime is the user and system time this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func reportCPU(b *testing.B, start time.Duration) {
	b.Helper()
	b.ReportMetric(float64(cpuTime()-start)/float64(b.N), "cpu-ns/op")
}
