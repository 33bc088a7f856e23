package compat_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"testing"

	golang "github.com/golang/snappy"
	"github.com/klauspost/compress/s2"

	"github.com/davidwartell/go-grpcpool/snappy"
	"github.com/davidwartell/go-grpcpool/snappy/compat"
)

func compress(t *testing.T, message []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := snappy.Compressor().Compress(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(message); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func decompress(message []byte) ([]byte, error) {
	r, err := snappy.Compressor().Decompress(bytes.NewReader(message))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func theirs(message []byte) ([]byte, error) {
	return io.ReadAll(golang.NewReader(bytes.NewReader(message)))
}

func TestOthersReadWhatWeWrite(t *testing.T) {
	for _, message := range compat.Messages() {
		checkOthersRead(t, message)
	}
}

func checkOthersRead(t *testing.T, message []byte) {
	t.Helper()
	sent := compress(t, message)
	if got, err := theirs(sent); err != nil || !bytes.Equal(got, message) {
		t.Errorf("golang/snappy made %d bytes of %d: %v", len(got), len(message), err)
	}
	if got, err := io.ReadAll(s2.NewReader(bytes.NewReader(sent))); err != nil || !bytes.Equal(got, message) {
		t.Errorf("klauspost/compress made %d bytes of %d: %v", len(got), len(message), err)
	}
}

func TestWeReadWhatOthersWrite(t *testing.T) {
	for _, message := range compat.Messages() {
		checkWeRead(t, message)
	}
}

func checkWeRead(t *testing.T, message []byte) {
	t.Helper()
	for name, open := range map[string]func(io.Writer) io.WriteCloser{
		"golang/snappy": func(w io.Writer) io.WriteCloser { return golang.NewBufferedWriter(w) },
		"klauspost": func(w io.Writer) io.WriteCloser {
			return s2.NewWriter(w, s2.WriterSnappyCompat(), s2.WriterConcurrency(1))
		},
		"klauspost, best, padded": func(w io.Writer) io.WriteCloser {
			return s2.NewWriter(w, s2.WriterSnappyCompat(), s2.WriterConcurrency(1), s2.WriterBestCompression(), s2.WriterPadding(4096))
		},
	} {
		var b bytes.Buffer
		w := open(&b)
		w.Write(message)
		w.Close()
		if got, err := decompress(b.Bytes()); err != nil || !bytes.Equal(got, message) {
			t.Errorf("of %d bytes from %s we made %d: %v", len(message), name, len(got), err)
		}
	}
}

func TestWeCompressAboutAsWellAsOthers(t *testing.T) {
	for _, message := range compat.Messages() {
		var b bytes.Buffer
		w := golang.NewBufferedWriter(&b)
		w.Write(message)
		w.Close()
		// Storing what hardly shrinks may cost an eighth, and what is too short to try, 18 bytes.
		if ours := len(compress(t, message)); ours > b.Len()*9/8+18 {
			t.Errorf("%d bytes: ours %d, golang/snappy's %d", len(message), ours, b.Len())
		}
	}
}

func FuzzRoundTrips(f *testing.F) {
	for _, message := range compat.Messages() {
		if len(message) < 5000 {
			f.Add(message)
		}
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		checkOthersRead(t, message)
		checkWeRead(t, message)
	})
}

// FuzzVerdicts repairs the checksums of any bytes and demands that we read what
// golang/snappy reads, and nothing else but what klauspost's decoder reads too: S2
// repeats, as far as the package allows them.
func FuzzVerdicts(f *testing.F) {
	for _, message := range compat.Messages() {
		if len(message) < 5000 {
			var b bytes.Buffer
			w := golang.NewBufferedWriter(&b)
			w.Write(message)
			w.Close()
			f.Add(b.Bytes())
			f.Add(bytes.Clone(b.Bytes()[10:]))
		}
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		message, skipped := repair(message)
		got, err := decompress(message)
		want, theirErr := theirs(message)
		if skipped > maxSkipped && err == nil {
			return // golang/snappy refuses to skip a chunk that its buffer cannot hold
		}
		if err == nil && theirErr != nil {
			want, theirErr = io.ReadAll(s2.NewReader(bytes.NewReader(message), s2.ReaderMaxBlockSize(64<<10)))
		}
		if (err == nil) != (theirErr == nil) {
			t.Fatalf("we say %v, the others say %v", err, theirErr)
		}
		if err == nil && !bytes.Equal(got, want) {
			t.Fatal("we read something else than the others")
		}
	})
}

const (
	streamID   = "\xff\x06\x00\x00sNaPpY"
	maxSkipped = 76490 + 4
)

// repair puts the stream identifier in front where it is missing, and right checksums
// into data chunks. It returns the length of the longest chunk to be skipped.
func repair(message []byte) (repaired []byte, skipped int) {
	message = bytes.Clone(message)
	if !bytes.HasPrefix(message, []byte(streamID)) {
		message = append([]byte(streamID), message...)
	}
	for rest := message; len(rest) >= 8; {
		size := int(binary.LittleEndian.Uint32(rest) >> 8)
		body := rest[4:min(len(rest), 4+size)]
		plain := []byte(nil)
		switch {
		case rest[0] >= 0x80:
			skipped = max(skipped, size)
		case rest[0] == 1 && len(body) >= 4:
			plain = body[4:]
		case rest[0] == 0 && len(body) >= 4:
			if n, err := s2.DecodedLen(body[4:]); err == nil && n <= 1<<17 {
				plain, _ = s2.Decode(nil, body[4:])
			}
		}
		if plain != nil {
			c := crc32.Checksum(plain, crc32.MakeTable(crc32.Castagnoli))
			binary.LittleEndian.PutUint32(body, (c>>15|c<<17)+0xa282ead8)
		}
		rest = rest[4+len(body):]
	}
	return message, skipped
}
