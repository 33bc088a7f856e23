package snappy_test

import (
	"bytes"
	"io"
	"runtime"
	"testing"
)

// BenchmarkRetained is the memory that a compressor keeps for every message that was
// being written, or read, at the same time as others: what stays in its pools after
// messages of 100 bytes.
func BenchmarkRetained(b *testing.B) {
	const atOnce = 256
	message := payloads[0].messages[0]
	for _, p := range inTurn() {
		var sent bytes.Buffer
		w, err := p.Compress(&sent)
		if err != nil {
			b.Fatal(err)
		}
		w.Write(message)
		w.Close()

		b.Run("payload="+payloads[0].name+"/side=writer/peer="+p.name, func(b *testing.B) {
			measureRetained(b, func() {
				var open [atOnce]io.WriteCloser
				for i := range open {
					open[i], _ = p.Compress(io.Discard)
					open[i].Write(message)
				}
				for i := range open {
					open[i].Close()
				}
			}, atOnce)
		})
		b.Run("payload="+payloads[0].name+"/side=reader/peer="+p.name, func(b *testing.B) {
			measureRetained(b, func() {
				var open [atOnce]io.Reader
				p4 := make([]byte, 4)
				for i := range open {
					open[i], _ = p.Decompress(bytes.NewReader(sent.Bytes()))
					io.ReadFull(open[i], p4)
				}
				for i := range open {
					io.Copy(io.Discard, struct{ io.Reader }{open[i]})
					if c, ok := open[i].(io.Closer); ok {
						c.Close()
					}
				}
			}, atOnce)
		})
	}
}

func measureRetained(b *testing.B, use func(), n int) {
	b.Helper()
	var kept uint64
	for b.Loop() {
		// What is in a sync.Pool outlives one collection, not two.
		runtime.GC()
		runtime.GC()
		before := heap()
		use()
		runtime.GC()
		if after := heap(); after > before {
			kept = max(kept, after-before)
		}
	}
	b.ReportMetric(float64(kept)/float64(n), "retained-B")
	b.ReportMetric(0, "ns/op") // the time of the collections means nothing
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
