package snappy

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/s2"
)

const (
	// pieceSize is the length of the longest Write to gRPC. gRPC copies each into a
	// pooled buffer of 256 B, 4, 16 or 32 KiB or 1 MiB, which it clears first: a Write
	// one byte longer than 32 KiB would clear 1 MiB.
	pieceSize = 32 << 10
	// blockSize is the length of the data in one chunk. Uncompressed, it fills exactly
	// two pieces together with the stream identifier and the header.
	blockSize = 2*pieceSize - len(streamID) - headerLen - checksumLen
	// directSize is the length from which a later Write gets chunks of its own instead of
	// being gathered, because copying it would cost more than a chunk's header.
	directSize = 16 << 10
	// minCompress is the length from which compression is tried.
	minCompress = 24
)

// writer lends a pooled encoder to one call. The writer itself is not pooled: once it has
// released the encoder, using it cannot affect another call.
type writer struct {
	enc *encoder
	err error // set when enc is nil
}

func (w *writer) Write(p []byte) (int, error) {
	if w.enc == nil {
		return 0, w.err
	}
	if err := w.enc.write(p); err != nil {
		w.release(err)
		return 0, err
	}
	return len(p), nil
}

// Close ends the stream. After a failed Write it returns that error again; after a Close
// it does nothing.
func (w *writer) Close() error {
	if w.enc == nil {
		if w.err == ErrClosed { //nolint:errorlint // set below, never wrapped
			return nil
		}
		return w.err
	}
	if err := w.enc.finish(); err != nil {
		w.release(err)
		return err
	}
	w.release(ErrClosed)
	return nil
}

func (w *writer) release(err error) {
	w.enc.release()
	w.enc, w.err = nil, err
}

// encoder writes one stream. gRPC nearly always passes a message in one Write, so the
// first Write is encoded at once, straight from the caller's memory.
type encoder struct {
	w io.Writer
	// begun is true when the stream identifier has been written.
	begun bool
	// gathered holds the first n bytes of the next chunk, from later short Writes.
	gathered *scratch
	n        int
	// small is the buffer in which a message of up to about 1,500 bytes is encoded.
	small [1536]byte
}

var encoders = sync.Pool{New: func() any { return new(encoder) }}

func newEncoder(w io.Writer) *encoder {
	e := encoders.Get().(*encoder) //nolint:forcetypeassert // the pool holds only encoders
	e.w = w
	return e
}

func (e *encoder) release() {
	e.gathered.put()
	e.w, e.begun, e.gathered, e.n = nil, false, nil, 0
	encoders.Put(e)
}

func (e *encoder) write(p []byte) error {
	for len(p) > 0 {
		if e.n == 0 && (!e.begun || len(p) >= directSize) {
			return e.encode(p)
		}
		if e.gathered == nil {
			e.gathered = getScratch(blockSize)
		}
		k := copy(e.gathered.b[e.n:blockSize], p)
		p = p[k:]
		e.n += k
		if e.n == blockSize {
			if err := e.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish writes what is left. A stream without data still has its identifier, because
// some decoders refuse a stream without one.
func (e *encoder) finish() error {
	if e.n > 0 {
		return e.flush()
	}
	if !e.begun {
		return e.emit(append(e.small[:0], streamID...))
	}
	return nil
}

func (e *encoder) flush() error {
	n := e.n
	e.n = 0
	return e.encode(e.gathered.b[:n])
}

// encode writes p as chunks.
func (e *encoder) encode(p []byte) error {
	buf := e.small[:]
	if need := chunkRoom(min(len(p), blockSize)); need > len(buf) {
		s := getScratch(need)
		defer s.put()
		buf = s.b
	}
	for len(p) > 0 {
		n := min(len(p), blockSize)
		if err := e.chunk(buf, p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// chunk writes data as one chunk. buf is long enough for it.
func (e *encoder) chunk(buf, data []byte) error {
	start := 0
	if !e.begun {
		start = copy(buf, streamID)
		e.begun = true
	}
	header := buf[start : start+headerLen+checksumLen]
	start += len(header)
	binary.LittleEndian.PutUint32(header[headerLen:], checksum(data))

	if len(data) >= minCompress {
		// golang/snappy's encoder is somewhat faster up to 1 KiB, but calls over a socket
		// cost more CPU time with it. The reason may be its stack frame of 32 KiB: a gRPC
		// server handles each call on a goroutine of its own, whose stack has to grow.
		block := s2.EncodeSnappy(buf[start:], data)
		if len(block) < len(data)-len(data)/8 {
			putHeader(header, chunkCompressed, checksumLen+len(block))
			return e.emit(buf[:start+len(block)])
		}
	}
	// Only the first piece is copied; the rest is written straight from data.
	putHeader(header, chunkUncompressed, checksumLen+len(data))
	k := copy(buf[start:min(pieceSize, len(buf))], data)
	if err := e.emit(buf[:start+k]); err != nil {
		return err
	}
	return e.emit(data[k:])
}

func putHeader(header []byte, chunkType byte, size int) {
	binary.LittleEndian.PutUint32(header, uint32(chunkType)|uint32(size)<<8) //nolint:gosec // size is at most maxBlock+4
}

// emit writes b in pieces.
func (e *encoder) emit(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), pieceSize)
		if _, err := e.w.Write(b[:n]); err != nil {
			return fmt.Errorf("snappy: writing the compressed message: %w", err)
		}
		b = b[n:]
	}
	return nil
}
