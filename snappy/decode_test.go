package snappy_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/s2"

	"github.com/davidwartell/go-grpcpool/snappy"
)

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

// s2Repeat is 9 bytes of operations that s2.Decode makes 65,536 of.
var s2Repeat = func() []byte {
	ops := append(literal([]byte("ab")), 1|0<<2, 1) // copy1: length 4, offset 1
	return append(ops, 1|6<<2, 0, 0xf6, 0xfe)       // repeat of length 4+256+0xfef6
}()

func TestDamagedAndForeignMessagesAreRefusedWithAReason(t *testing.T) {
	hello := []byte("hello hello hello hello hello hello")
	block := s2.EncodeSnappy(nil, hello)
	big := make([]byte, 65537)
	zeros := make([]byte, 65536)
	if got, err := s2.Decode(nil, append(binary.AppendUvarint(nil, 65536), s2Repeat...)); err != nil || len(got) != 65536 {
		t.Fatalf("the S2 block is no S2 block: %d bytes, %v", len(got), err)
	}
	for _, c := range []struct {
		name    string
		message []byte
		is      error
		says    string
	}{
		{"no identifier", stored(hello), snappy.ErrFormat, "begins with the bytes 01 27 00 00"},
		{"bad identifier", []byte("\xff\x06\x00\x00sNaPpy"), snappy.ErrFormat, `the stream identifier is "\xff\x06\x00\x00sNaPpy"`},
		{"identifier of another length", []byte("\xff\x07\x00\x00sNaPpY!"), snappy.ErrFormat, `identifier is "\xff\a\x00\x00sNaPpY"`},
		{"S2 identifier", []byte("\xff\x06\x00\x00S2sTwO"), snappy.ErrFormat, "S2 stream"},
		{"S2 identifier later", stream([]byte("\xff\x06\x00\x00S2sTwO")), snappy.ErrFormat, `at byte 10 is "S2sTwO"`},
		{"repeated identifier of another length", stream(chunk(0xff, []byte("sNaPp"))), snappy.ErrCorrupt, "has 6 bytes, this one has 5"},
		{"raw block", block, snappy.ErrFormat, "raw snappy block"},
		{"raw block of one byte", s2.EncodeSnappy(nil, []byte("x")), snappy.ErrFormat, "raw snappy block"},
		{"raw block of nothing", s2.EncodeSnappy(nil, nil), snappy.ErrFormat, "raw snappy block"},
		{"raw block of much", s2.EncodeSnappy(nil, textOf(1<<20)), snappy.ErrFormat, "raw snappy block"},
		{"xerial", append([]byte("\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"), block...), snappy.ErrFormat, "xerial"},
		{"gzip", []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"), snappy.ErrFormat, "1f 8b 08"},
		{"checksum of stored data", stream(flip(stored(hello), 4)), snappy.ErrCorrupt, "at byte 10: its checksum"},
		{"stored data", stream(stored(hello), flip(stored(hello), 20)), snappy.ErrCorrupt, "at byte 53: its checksum"},
		{"checksum of compressed data", stream(flip(compressed(hello, literal(hello)), 5)), snappy.ErrCorrupt, "checksum"},
		{"compressed data", stream(flip(compressed(hello, literal(hello)), 20)), snappy.ErrCorrupt, "checksum"},
		{"checksum of nothing", stream(chunk(1, []byte{1, 2, 3, 4})), snappy.ErrCorrupt, "checksum"},
		{"stored chunk of 3 bytes", stream(chunk(1, []byte{1, 2, 3})), snappy.ErrCorrupt, "is uncompressed and has 3 bytes"},
		{"is compressed and has 3 bytes", stream(chunk(0, []byte{1, 2, 3})), snappy.ErrCorrupt, "is compressed and has 3 bytes"},
		{"compressed chunk without a block", stream(chunk(0, []byte{1, 2, 3, 4})), snappy.ErrCorrupt, "does not begin with a length"},
		{"65,537 stored bytes", stream(stored(big)), snappy.ErrCorrupt, "is uncompressed and has 65541 bytes"},
		{"65,537 declared bytes", stream(compressed(big, literal(big[:65536]))), snappy.ErrCorrupt, "declares 65537 bytes"},
		{"1 GiB declared", stream(chunk(0, data(nil, binary.AppendUvarint(nil, 1<<30)))), snappy.ErrCorrupt, "declares 1073741824"},
		{"more than 64 bits declared", stream(chunk(0, data(nil, bytes.Repeat([]byte{0xff}, 11)))), snappy.ErrCorrupt, "does not begin with a length"},
		{"a compressed chunk over the limit", stream(chunk(0, make([]byte, 76495))), snappy.ErrCorrupt, "is compressed and has 76495"},
		{"16 MiB announced", stream([]byte{0, 0xff, 0xff, 0xff}), snappy.ErrCorrupt, "is compressed and has 16777215"},
		{"a block that ends early", stream(compressed(hello, literal(hello[:9]))), snappy.ErrCorrupt, "cannot be decoded"},
		{"a block that goes on", stream(compressed(hello[:9], literal(hello))), snappy.ErrCorrupt, "cannot be decoded"},
		{"an S2 bomb", stream(compressed(zeros, s2Repeat)), snappy.ErrCorrupt, "65536 bytes of data in 9 bytes, which is more than snappy can do"},
		{"an S2 repeat of nothing", stream(compressed(hello, append([]byte{1, 0}, literal(hello[4:])...))), snappy.ErrCorrupt, "cannot be decoded"},
		{"reserved type 0x02", stream(chunk(0x02)), snappy.ErrFormat, "reserved type 0x02"},
		{"reserved type 0x7f", stream(chunk(0x7f)), snappy.ErrFormat, "reserved type 0x7f"},
		{"padding cut short", stream([]byte{0xfe, 0xff, 0xff, 0xff}, make([]byte, 9)), snappy.ErrCorrupt, "ends inside it, at byte 23"},
	} {
		for _, read := range []func([]byte) ([]byte, error){
			decompress,
			func(b []byte) ([]byte, error) { return decompressIn(b, len(b)) },
			func(b []byte) ([]byte, error) { return decompressIn(b, 3) },
		} {
			_, err := read(c.message)
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "snappy: ") {
				t.Errorf("%s: error %v; want it to be %q and to say %q", c.name, err, c.is, c.says)
			}
		}
	}
}

func TestWhatTheFormatAllowsIsRead(t *testing.T) {
	hello := []byte("hello hello hello hello hello hello")
	full := textOf(65536)
	zeros := make([]byte, 65536)
	for _, c := range []struct {
		name    string
		message []byte
		want    string
	}{
		{"no byte at all", nil, ""},
		{"identifier only", stream(), ""},
		{"concatenated streams", stream(stored(hello), stream(stored(hello))), string(hello) + string(hello)},
		{"skippable types", stream(chunk(0x80, hello), chunk(0xfd), stored(hello), chunk(0xbf, hello)), string(hello)},
		{"large padding", stream(chunk(0xfe, make([]byte, 1<<24-1)), stored(hello)), string(hello)},
		{"chunks of nothing", stream(stored(nil), compressed(nil, nil), chunk(0xfe), stored(hello)), string(hello)},
		{"a flood of chunks of nothing", stream(bytes.Repeat(chunk(0xfe), 1<<18), bytes.Repeat(stored(nil), 1<<16)), ""},
		{"65,536 stored bytes", stream(stored(full)), string(full)},
		{"65,536 declared bytes", stream(compressed(full, literal(full))), string(full)},
		{"a far copy", stream(compressed([]byte("abababababab"), append(literal([]byte("ab")), 3|9<<2, 2, 0, 0, 0))), "abababababab"},
		{"the most that snappy can make of so many bytes", stream(compressed(zeros, mostOf(zeros))), string(zeros)},
		{"bytes like an S2 repeat", stream(compressed([]byte("\x01\x00\x01\x00ab"), literal([]byte("\x01\x00\x01\x00ab")))), "\x01\x00\x01\x00ab"},
	} {
		for _, size := range []int{1, 7, 16 << 10, 1 << 25} {
			if len(c.message) > 1<<16*size {
				continue // takes long and says nothing new
			}
			got, err := decompressIn(c.message, size)
			if err != nil || string(got) != c.want {
				t.Errorf("%s, in frames of %d: %d bytes, %v; want %d", c.name, size, len(got), err, len(c.want))
			}
		}
	}
}

// mostOf is the shortest operations that are all the same byte.
func mostOf(same []byte) []byte {
	ops := literal(same[:1])
	for n := len(same) - 1; n > 0; n -= min(n, 64) {
		ops = append(ops, 2|byte(min(n, 64)-1)<<2, 1, 0)
	}
	return ops
}

// An S2 repeat makes any length of a few bytes. It is read where snappy could have made
// as much of as many bytes, which is 64 of 3, and not beyond.
func TestAnS2RepeatIsNoBomb(t *testing.T) {
	const most = 27 / 3 * 64
	for _, length := range []int{most, most + 1} {
		plain := make([]byte, length)
		ops := append(literal(plain[:20]), 1|0<<2, 1) // copy1: length 4, offset 1
		rest := length - 24 - 260
		ops = append(ops, 1|6<<2, 0, byte(rest), byte(rest>>8))
		got, err := decompress(stream(compressed(plain, ops)))
		switch {
		case len(ops) != 27:
			t.Fatalf("%d bytes of operations", len(ops))
		case length == most && (err != nil || !bytes.Equal(got, plain)):
			t.Errorf("%d bytes: %d, %v", length, len(got), err)
		case length > most && !errors.Is(err, snappy.ErrCorrupt):
			t.Errorf("%d bytes: %v", length, err)
		}
	}
}

func TestAMessageCutAnywhereIsRefused(t *testing.T) {
	for _, message := range [][]byte{
		stream(compressed([]byte("abababababab"), append(literal([]byte("ab")), 3|9<<2, 2, 0, 0, 0)), chunk(0xfe, make([]byte, 20))),
		stream(stored([]byte("some data")), stream()),
	} {
		whole := map[int]bool{0: true} // cuts between chunks, which nobody can notice
		for i := 0; i < len(message); i += 4 + int(message[i+1]) {
			whole[i] = true
		}
		for cut := range message {
			for _, read := range []func([]byte) ([]byte, error){
				decompress,
				func(b []byte) ([]byte, error) { return decompressIn(b, len(b)+1) },
			} {
				_, err := read(message[:cut])
				if whole[cut] != (err == nil) || err != nil && !errors.Is(err, snappy.ErrCorrupt) {
					t.Errorf("cut at %d of %d: %v", cut, len(message), err)
				}
			}
		}
	}
}

func TestMessagesSurviveEverySplitOfTheSource(t *testing.T) {
	message := stream(compressed([]byte("abababababab"), append(literal([]byte("ab")), 3|9<<2, 2, 0, 0, 0)),
		stored([]byte("some data")), chunk(0xfe, make([]byte, 5)), compressed(textOf(90), literal(textOf(90))))
	want, err := decompress(message)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(message); i++ {
		got, err := decompressIn(message, i)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("frames of %d bytes: %v %s", i, err, diff)
		}
		got, err = readAll(io.MultiReader(bytes.NewReader(message[:i]), iotest.OneByteReader(bytes.NewReader(message[i:]))))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("split at %d: %v %s", i, err, diff)
		}
	}
}

func TestTheSizeOfTheCallersBufferDoesNotMatter(t *testing.T) {
	want := append(textOf(70_000), randomOf(70_000)...)
	message := compress(t, want)
	for _, size := range []int{1, 2, 3, 100, 32 << 10, 65518, 1 << 20} {
		r, _ := snappy.Compressor().Decompress(bytes.NewReader(message))
		got, p := []byte(nil), make([]byte, size)
		for {
			n, err := r.Read(p)
			got = append(got, p[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("buffer of %d: the message changed", size)
		}
	}
}

func TestAnErrorOfTheSourceIsPassedOn(t *testing.T) {
	broken := errors.New("broken")
	message := compress(t, textOf(100))
	for _, cut := range []int{0, 5, 12, 30} {
		_, err := readAll(io.MultiReader(bytes.NewReader(message[:cut]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "snappy: ") {
			t.Errorf("after %d bytes: %v", cut, err)
		}
	}
}
