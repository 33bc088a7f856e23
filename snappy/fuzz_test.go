package snappy_test

import (
	"bytes"
	"encoding/binary"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/s2"
)

// Fuzz with -fuzzminimizetime=20x: making every interesting message as short as can be
// takes a minute each, in which nothing is tried.

// seeds are messages of every kind the other tests know.
func seeds(f *testing.F) {
	f.Helper()
	hello := []byte("hello hello hello hello")
	for _, m := range [][]byte{
		nil, stream(), stream(stored(hello)), stream(compressed(hello, literal(hello))),
		stream(chunk(0xfe, make([]byte, 9)), stored(nil), stream(stored(hello))),
		stream(compressed(make([]byte, 65536), s2Repeat)),
		[]byte("\x82SNAPPY\x00\x00\x00\x00\x01"), s2.EncodeSnappy(nil, hello),
	} {
		f.Add(m)
	}
	for _, n := range []int{100, 700, 3000} {
		f.Add(compress(f, textOf(n)))
		f.Add(compress(f, randomOf(n)))
		f.Add(stream(chunk(0, data(textOf(n), s2.Encode(nil, textOf(n))))))
	}
}

// FuzzDecode decodes anything, in every way, and compares with the plain decoder of
// oracle_test.go.
func FuzzDecode(f *testing.F) {
	seeds(f)
	f.Fuzz(checkAgainstOracle)
}

// FuzzDecodeRepaired is FuzzDecode on messages whose checksums have been made right:
// without that, hardly a changed byte gets further than the checksum.
func FuzzDecodeRepaired(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, message []byte) { checkAgainstOracle(t, repair(message)) })
}

func checkAgainstOracle(t *testing.T, message []byte) {
	t.Helper()
	want, wantOK := oracle(message)
	for _, read := range []func([]byte) ([]byte, error){
		decompress,
		func(b []byte) ([]byte, error) { return decompressIn(b, len(b)+1) },
		func(b []byte) ([]byte, error) { return decompressIn(b, 1+len(b)/3) },
		func(b []byte) ([]byte, error) { return readAll(iotest.DataErrReader(bytes.NewReader(b))) },
	} {
		got, err := read(message)
		if (err == nil) != wantOK {
			t.Fatalf("error %v; the plain decoder accepts: %v", err, wantOK)
		}
		if wantOK && !bytes.Equal(got, want) {
			t.Fatal("decoded to something else than by the plain decoder")
		}
	}
}

// repair makes a message that gets past the checks at the door: it puts the stream
// identifier in front where it is missing, and into every data chunk the checksum of
// what the chunk decodes to, as far as it decodes, by snappy's rules or by S2's.
func repair(message []byte) []byte {
	message = bytes.Clone(message)
	if !bytes.HasPrefix(message, []byte(streamID)) {
		message = stream(message)
	}
	for rest := message; len(rest) >= 8; {
		body := rest[4:min(len(rest), 4+int(binary.LittleEndian.Uint32(rest)>>8))]
		if len(body) >= 4 {
			switch rest[0] {
			case 0:
				if n, err := s2.DecodedLen(body[4:]); err == nil && n <= 1<<17 {
					if plain, err := s2.Decode(nil, body[4:]); err == nil {
						binary.LittleEndian.PutUint32(body, checksum(plain))
					}
				}
			case 1:
				binary.LittleEndian.PutUint32(body, checksum(body[4:]))
			}
		}
		rest = rest[4+len(body):]
	}
	return message
}

// FuzzRoundTrip sends anything, in writes and frames of any size.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("hello"), uint16(1), uint16(1))
	f.Add(textOf(70_000), uint16(40_000), uint16(16<<10))
	f.Add(randomOf(70_000), uint16(20), uint16(100))
	f.Fuzz(func(t *testing.T, message []byte, write, frame uint16) {
		sent := compressIn(t, message, int(write)+1)
		got, err := decompressIn(sent, int(frame)+1)
		if err != nil || !bytes.Equal(got, message) {
			t.Fatalf("%d bytes came back as %d, %v", len(message), len(got), err)
		}
		if want, ok := oracle(sent); !ok || !bytes.Equal(want, message) {
			t.Fatal("the plain decoder reads something else")
		}
	})
}
