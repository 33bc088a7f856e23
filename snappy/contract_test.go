package snappy_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"github.com/davidwartell/go-grpcpool/snappy"
)

func TestImportingRegisters(t *testing.T) {
	if c := encoding.GetCompressor("snappy"); c != snappy.Compressor() || !snappy.Registered() {
		t.Errorf("gRPC has %v, Registered says %v", c, snappy.Registered())
	}
}

func TestAWriterIsOfNoUseAfterClose(t *testing.T) {
	var b bytes.Buffer
	w, _ := snappy.Compressor().Compress(&b)
	w.Write([]byte("data"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	length := b.Len()
	if n, err := w.Write([]byte("more")); n != 0 || !errors.Is(err, snappy.ErrClosed) {
		t.Errorf("Write after Close: %d, %v", n, err)
	}
	if err := w.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if b.Len() != length {
		t.Error("something was written after Close")
	}
}

func TestAReaderKeepsSayingHowItEnded(t *testing.T) {
	good := compress(t, []byte("data"))
	for _, c := range []struct {
		name    string
		message []byte
		end     error
	}{
		{"EOF", good, io.EOF},
		{"error", good[:len(good)-1], snappy.ErrCorrupt},
	} {
		r, _ := snappy.Compressor().Decompress(bytes.NewReader(c.message))
		_, err := io.ReadAll(r)
		if err != nil && !errors.Is(err, c.end) { // io.ReadAll does not report EOF
			t.Errorf("%s: %v", c.name, err)
		}
		for range 2 {
			if n, err := r.Read(make([]byte, 9)); n != 0 || !errors.Is(err, c.end) {
				t.Errorf("Read after %s: %d, %v", c.name, n, err)
			}
			if err := r.(io.Closer).Close(); err != nil {
				t.Errorf("Close after %s: %v", c.name, err)
			}
		}
	}
	r, _ := snappy.Compressor().Decompress(bytes.NewReader(good))
	if n, err := r.Read(nil); n != 0 || err != nil {
		t.Errorf("Read of nothing: %d, %v", n, err)
	}
	r.(io.Closer).Close()
	if n, err := r.Read(make([]byte, 9)); n != 0 || !errors.Is(err, snappy.ErrClosed) {
		t.Errorf("Read after Close: %d, %v", n, err)
	}
}

// Calls share pooled state. Here many of them run at once, and each goes on using its
// reader and writer after their end, as a careless caller might: under the race
// detector, and by the data, one must never touch another's.
func TestCallsNeverShareStateHoweverTheyEnd(t *testing.T) {
	var wg sync.WaitGroup
	for g := range 4 * runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 0))
			for range 100 {
				if err := carelessCall(r); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func carelessCall(r *rand.Rand) error {
	message := bytes.Repeat([]byte{byte(r.Uint32()), byte(r.Uint32()), 'x'}, 1+r.IntN(40_000))
	var b bytes.Buffer
	w, _ := snappy.Compressor().Compress(&b)
	half := r.IntN(len(message))
	w.Write(message[:half])
	w.Write(message[half:])
	w.Close()
	sent := b.Bytes()

	late, _ := snappy.Compressor().Decompress(bytes.NewReader(sent))
	late.Read(make([]byte, 1+r.IntN(10)))
	late.(io.Closer).Close()

	broken, _ := snappy.Compressor().Decompress(bytes.NewReader(sent[:len(sent)-1]))
	if _, err := io.ReadAll(broken); !errors.Is(err, snappy.ErrCorrupt) {
		return errors.New("a cut message was accepted")
	}

	frames := mem.BufferSlice{mem.SliceBuffer(sent)}
	d, _ := snappy.Compressor().Decompress(frames.Reader())
	got := make([]byte, 0, len(message)+9)
	for {
		w.Write([]byte("late"))
		w.Close()
		late.Read(make([]byte, 100))
		late.(io.Closer).Close()
		broken.Read(make([]byte, 100))
		n, err := d.Read(got[len(got):cap(got)])
		got = got[:len(got)+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if !bytes.Equal(got, message) {
		return errors.New("a message changed")
	}
	return nil
}

func TestACallAllocatesItsHandleOnly(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops items at random under the race detector")
	}
	c := snappy.Compressor()
	for _, message := range [][]byte{textOf(100), textOf(1 << 10), textOf(10 << 10), textOf(200_000), randomOf(200_000)} {
		sent := compress(t, message)
		if n := testing.AllocsPerRun(200, func() {
			w, _ := c.Compress(io.Discard)
			w.Write(message)
			w.Close()
		}); n > 1 {
			t.Errorf("compressing %d bytes: %v allocations", len(message), n)
		}
		buf := make([]byte, 32<<10)
		source := bytes.NewReader(nil)
		if n := testing.AllocsPerRun(200, func() {
			source.Reset(sent)
			r, _ := c.Decompress(source)
			for {
				if _, err := r.Read(buf); err != nil {
					return
				}
			}
		}); n > 1 {
			t.Errorf("decompressing %d bytes: %v allocations", len(message), n)
		}
	}
}

func TestHostileClaimsCostNoMemory(t *testing.T) {
	for name, message := range map[string][]byte{
		"16 MiB announced": stream([]byte{0, 0xff, 0xff, 0xff}),
		"1 GiB declared":   stream(chunk(0, data(nil, []byte{0x80, 0x80, 0x80, 0x80, 4}))),
		"16 MiB padding":   stream([]byte{0xfe, 0xff, 0xff, 0xff}),
		"flood":            stream(bytes.Repeat(chunk(0xfe), 1<<18)),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 3 {
			decompressIn(message, 16<<10)
		}
		runtime.ReadMemStats(&after)
		if used := (after.TotalAlloc - before.TotalAlloc) / 3; used > 200<<10 {
			t.Errorf("%s: %d bytes allocated", name, used)
		}
	}
}
