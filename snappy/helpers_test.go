package snappy_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc/mem"

	"github.com/davidwartell/go-grpcpool/snappy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const streamID = "\xff\x06\x00\x00sNaPpY"

func checksum(b []byte) uint32 {
	c := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	return (c>>15 | c<<17) + 0xa282ead8
}

// chunk is a chunk of any type and body.
func chunk(chunkType byte, body ...[]byte) []byte {
	b := bytes.Join(body, nil)
	n := len(b)
	return append([]byte{chunkType, byte(n), byte(n >> 8), byte(n >> 16)}, b...)
}

// data is the body of a data chunk: checksum of plain, then block.
func data(plain, block []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, checksum(plain)), block...)
}

func stored(plain []byte) []byte { return chunk(1, data(plain, plain)) }

// compressed is a compressed chunk whose block has the given operations.
func compressed(plain, ops []byte) []byte {
	return chunk(0, data(plain, append(binary.AppendUvarint(nil, uint64(len(plain))), ops...)))
}

// literal is an operation.
func literal(b []byte) []byte {
	n := len(b) - 1
	if n < 60 {
		return append([]byte{byte(n) << 2}, b...)
	}
	return append([]byte{61 << 2, byte(n), byte(n >> 8)}, b...)
}

func stream(parts ...[]byte) []byte {
	return append([]byte(streamID), bytes.Join(parts, nil)...)
}

func compress(t testing.TB, message []byte) []byte {
	t.Helper()
	return compressIn(t, message, max(len(message), 1))
}

// compressIn compresses a message that comes in writes of size bytes.
func compressIn(t testing.TB, message []byte, size int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := snappy.Compressor().Compress(&b)
	if err != nil {
		t.Fatal(err)
	}
	for ; len(message) > 0; message = message[min(size, len(message)):] {
		if _, err := w.Write(message[:min(size, len(message))]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// decompress reads everything from what does not say how much it has.
func decompress(message []byte) ([]byte, error) {
	return readAll(struct{ io.Reader }{bytes.NewReader(message)})
}

// decompressIn does so from gRPC's own buffers, cut into frames of size bytes.
func decompressIn(message []byte, size int) ([]byte, error) {
	var frames mem.BufferSlice
	for len(message) > size {
		frames = append(frames, mem.SliceBuffer(message[:size]))
		message = message[size:]
	}
	frames = append(frames, mem.SliceBuffer(message))
	r := frames.Reader()
	got, err := readAll(r)
	if err == nil && r.Remaining() != 0 {
		return nil, io.ErrShortBuffer // read to EOF, input must be drained
	}
	return got, err
}

func readAll(r io.Reader) ([]byte, error) {
	d, err := snappy.Compressor().Decompress(r)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(d)
}

// sizes are around everything that is decided by length.
var sizes = []int{
	0, 1, 2, 23, 24, 60, 61, 100, 511, 512, 1023, 1024, 1500, 1536, 4096, 16<<10 - 1, 16 << 10, 16<<10 + 1,
	32<<10 - 18, 32 << 10, 32<<10 + 1, 65517, 65518, 65519, 65536, 65537, 2 * 65518, 200_000, 1 << 20,
}

func textOf(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	var b strings.Builder
	for b.Len() < n {
		b.WriteString([]string{"GET /", "status=200 ", "id=", "alpha", "bravo\n"}[r.IntN(5)])
		b.WriteByte(byte('0' + r.IntN(10)))
	}
	return []byte(b.String()[:n])
}

func randomOf(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}
