package snappy_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"google.golang.org/grpc/mem"

	"github.com/davidwartell/go-grpcpool/snappy"
)

func TestMessagesComeBackAsTheyWere(t *testing.T) {
	for _, size := range sizes {
		for _, message := range [][]byte{textOf(size), randomOf(size), make([]byte, size)} {
			sent := compress(t, message)
			for _, frame := range []int{100, 16 << 10, 1 << 24} {
				got, err := decompressIn(sent, frame)
				if err != nil || !bytes.Equal(got, message) {
					t.Errorf("%d bytes in frames of %d: got %d, %v", size, frame, len(got), err)
				}
			}
		}
	}
}

func TestAMessageMayComeInAnyNumberOfWrites(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 60 {
		message := append(textOf(r.IntN(200_000)), randomOf(r.IntN(70_000))...)
		var b bytes.Buffer
		w, _ := snappy.Compressor().Compress(&b)
		for rest := message; len(rest) > 0; {
			n := min(len(rest), 1+r.IntN(1<<r.IntN(18)))
			if k, err := w.Write(rest[:n]); k != n || err != nil {
				t.Fatal(k, err)
			}
			rest = rest[n:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := decompress(b.Bytes())
		if err != nil || !bytes.Equal(got, message) {
			t.Fatalf("%d bytes: got %d, %v", len(message), len(got), err)
		}
	}
}

func TestAnEmptyMessageIsItsIdentifier(t *testing.T) {
	if got := compress(t, nil); string(got) != streamID {
		t.Errorf("compressed nothing to %x", got)
	}
}

func TestDataThatDoesNotShrinkIsStored(t *testing.T) {
	const chunks = (1<<20 + 65517) / 65518
	if got, most := len(compress(t, randomOf(1<<20))), 1<<20+len(streamID)+chunks*8; got != most {
		t.Errorf("1 MiB of noise became %d bytes, want %d", got, most)
	}
}

func TestNoWriteIsLongerThanGRPCsLargeBuffers(t *testing.T) {
	for _, message := range [][]byte{randomOf(1 << 20), textOf(1 << 20)} {
		var out mem.BufferSlice
		w, _ := snappy.Compressor().Compress(mem.NewWriter(&out, mem.DefaultBufferPool()))
		w.Write(message)
		w.Close()
		for _, b := range out {
			if b.Len() > 32<<10 {
				t.Errorf("a Write of %d bytes", b.Len())
			}
		}
	}
}

// failing fails on its nth Write.
type failing struct{ n int }

var errFull = errors.New("full")

func (f *failing) Write(p []byte) (int, error) {
	if f.n--; f.n < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestAFailingWriterIsReportedByWriteAndClose(t *testing.T) {
	for n := range 5 {
		w, _ := snappy.Compressor().Compress(&failing{n})
		_, err := w.Write(randomOf(3 * 65518))
		if !errors.Is(err, errFull) {
			t.Errorf("Write after %d good ones: %v", n, err)
		}
		if _, err := w.Write([]byte("more")); !errors.Is(err, errFull) {
			t.Errorf("second Write: %v", err)
		}
		if err := w.Close(); !errors.Is(err, errFull) {
			t.Errorf("Close: %v", err)
		}
	}
	w, _ := snappy.Compressor().Compress(&failing{0})
	if err := w.Close(); !errors.Is(err, errFull) {
		t.Errorf("Close of an empty message: %v", err)
	}
	w, _ = snappy.Compressor().Compress(&failing{1})
	w.Write([]byte("first"))
	w.Write([]byte("gathered"))
	if err := w.Close(); !errors.Is(err, errFull) {
		t.Errorf("Close with data gathered: %v", err)
	}
}
