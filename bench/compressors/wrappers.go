package compressors

import (
	"errors"
	"io"
	"sync"

	golang "github.com/golang/snappy"
	"github.com/klauspost/compress/s2"
)

// original is golang/snappy as the first go-grpcpool used it: a pooled buffered
// writer, a pooled reader, each given back when it ends well.
type original struct{}

var (
	originalWriters = sync.Pool{New: func() any { return golang.NewBufferedWriter(io.Discard) }}
	originalReaders = sync.Pool{New: func() any { return golang.NewReader(nil) }}
)

func (original) Name() string { return Original }

func (original) Compress(w io.Writer) (io.WriteCloser, error) {
	z := originalWriters.Get().(*golang.Writer) //nolint:forcetypeassert // nothing else is in the pool
	z.Reset(w)
	return originalWriter{z}, nil
}

func (original) Decompress(r io.Reader) (io.Reader, error) {
	z := originalReaders.Get().(*golang.Reader) //nolint:forcetypeassert // nothing else is in the pool
	z.Reset(r)
	return originalReader{z}, nil
}

type originalWriter struct{ *golang.Writer }

func (w originalWriter) Close() error {
	defer originalWriters.Put(w.Writer)
	return w.Writer.Close()
}

type originalReader struct{ *golang.Reader }

func (r originalReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		originalReaders.Put(r.Reader)
	}
	return n, err
}

// s2Stream is klauspost's stream writer and reader in snappy mode, without the
// goroutines it would otherwise start for every message.
type s2Stream struct{}

var (
	s2Writers = sync.Pool{New: func() any {
		return s2.NewWriter(nil, s2.WriterSnappyCompat(), s2.WriterConcurrency(1))
	}}
	s2Readers = sync.Pool{New: func() any {
		return s2.NewReader(nil, s2.ReaderMaxBlockSize(64<<10), s2.ReaderAllocBlock(64<<10))
	}}
)

func (s2Stream) Name() string { return S2Stream }

func (s2Stream) Compress(w io.Writer) (io.WriteCloser, error) {
	z := s2Writers.Get().(*s2.Writer) //nolint:forcetypeassert // nothing else is in the pool
	z.Reset(w)
	return s2Writer{z}, nil
}

func (s2Stream) Decompress(r io.Reader) (io.Reader, error) {
	z := s2Readers.Get().(*s2.Reader) //nolint:forcetypeassert // nothing else is in the pool
	z.Reset(r)
	return s2Reader{z}, nil
}

type s2Writer struct{ *s2.Writer }

func (w s2Writer) Close() error {
	defer s2Writers.Put(w.Writer)
	return w.Writer.Close()
}

type s2Reader struct{ *s2.Reader }

func (r s2Reader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		s2Readers.Put(r.Reader)
	}
	return n, err
}
