package snappy

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"sync"

	"github.com/klauspost/compress/s2"
)

// reader lends a pooled decoder to one call. The reader itself is not pooled: once it has
// released the decoder, using it cannot affect another call.
type reader struct {
	dec *decoder
	err error // set when dec is nil
}

func (r *reader) Read(p []byte) (int, error) {
	if r.dec == nil {
		return 0, r.err
	}
	n, err := r.dec.read(p)
	if err != nil {
		r.release(err)
	}
	return n, err
}

// Close releases the decoder before the end of the message. After an error or EOF it does
// nothing.
func (r *reader) Close() error {
	if r.dec != nil {
		r.release(ErrClosed)
	}
	return nil
}

func (r *reader) release(err error) {
	r.dec.release()
	r.dec, r.err = nil, err
}

// decoder reads one stream. Data goes straight into the caller's buffer where it
// fits; at most one chunk is held.
type decoder struct {
	in input
	// begun is true when the stream identifier has been read.
	begun bool
	// chunk is the offset of the current chunk in the message, for error texts.
	chunk int64
	// unread is the rest of a block that did not fit the caller's buffer. It is part of
	// out.
	unread []byte
	out    *scratch
	// stored is the number of bytes left in an uncompressed chunk that is being read; crc
	// is the CRC of the bytes before them, want the checksum of all.
	stored    int
	crc, want uint32
}

var decoders = sync.Pool{New: func() any { return new(decoder) }}

func newDecoder(r io.Reader) *decoder {
	d := decoders.Get().(*decoder) //nolint:forcetypeassert // the pool holds only decoders
	d.in.reset(r)
	return d
}

func (d *decoder) release() {
	d.in.release()
	d.out.put()
	d.begun, d.chunk, d.unread, d.out = false, 0, nil, nil
	d.stored, d.crc, d.want = 0, 0, 0
	decoders.Put(d)
}

func (d *decoder) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if len(d.unread) > 0 {
			n := copy(p, d.unread)
			d.unread = d.unread[n:]
			return n, nil
		}
		if d.stored > 0 {
			return d.readStored(p)
		}
		n, err := d.nextChunk(p)
		if n > 0 && d.in.done() {
			return n, io.EOF // now, so that the caller need not allocate another buffer
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// nextChunk reads one chunk. If all of its data was decoded into p it returns the
// length, otherwise it leaves the data in d for read.
func (d *decoder) nextChunk(p []byte) (int, error) {
	d.chunk = d.in.pos
	if !d.begun {
		return 0, d.begin()
	}
	h, err := d.in.next(headerLen)
	if err != nil {
		if err == io.EOF { //nolint:errorlint // in.next returns it bare; this is the end of the stream
			return 0, io.EOF
		}
		return 0, d.short(err)
	}
	size := int(binary.LittleEndian.Uint32(h) >> 8)
	switch chunkType := h[0]; {
	case chunkType == chunkCompressed:
		return d.compressed(p, size)
	case chunkType == chunkUncompressed:
		return 0, d.uncompressed(size)
	case chunkType == chunkStreamID:
		return 0, d.repeatedID(size)
	case chunkType >= chunkFirstSkipped:
		return 0, d.short(d.in.skip(size))
	default:
		return 0, fmt.Errorf("%w: the chunk at byte %d has the reserved type 0x%02x, which must not be skipped",
			ErrFormat, d.chunk, chunkType)
	}
}

// begin reads the stream identifier. A message of no bytes counts as one without data,
// because that is what golang/snappy's writer sends.
func (d *decoder) begin() error {
	b, err := d.in.next(len(streamID))
	switch {
	case string(b) == streamID:
		d.begun = true
		return nil
	case err == io.EOF: //nolint:errorlint // in.next returns it bare
		return io.EOF
	case err != nil && (!isEnd(err) || strings.HasPrefix(streamID, string(b))):
		return d.short(err)
	default:
		return fmt.Errorf("%w: %s", ErrFormat, describeFormat(b))
	}
}

// repeatedID checks a stream identifier after the first: streams may be
// concatenated (section 4.1).
func (d *decoder) repeatedID(size int) error {
	name := streamID[headerLen:]
	if size != len(name) {
		return d.corrupt("a stream identifier has 6 bytes, this one has %d", size)
	}
	b, err := d.in.next(size)
	if err != nil {
		return d.short(err)
	}
	if string(b) != name {
		return fmt.Errorf("%w: the stream identifier at byte %d is %q, not %q", ErrFormat, d.chunk, b, name)
	}
	return nil
}

// compressed decodes a chunk of size bytes into p when it fits there.
func (d *decoder) compressed(p []byte, size int) (int, error) {
	if size < checksumLen || size > checksumLen+maxBody {
		return 0, d.corrupt("it is compressed and has %d bytes; the format allows %d to %d",
			size, checksumLen, checksumLen+maxBody)
	}
	body, err := d.in.next(size)
	if err != nil {
		return 0, d.short(err)
	}
	block := body[checksumLen:]
	length, ops, ok := parseBlock(block)
	if !ok {
		return 0, d.corrupt("its block does not begin with a length")
	}
	if length > maxBlock {
		return 0, d.corrupt("its block declares %d bytes of data; the format allows %d", length, maxBlock)
	}
	if !canHold(len(ops), length) {
		return 0, d.corrupt("its block declares %d bytes of data in %d bytes, which is more than snappy can do (64 in 3): it may be an S2 block",
			length, len(ops))
	}
	n := int(length)
	if n <= len(p) {
		if err := d.decode(p[:n:n], block, body); err != nil {
			return 0, err
		}
		return n, nil
	}
	d.out = d.out.grow(n)
	dst := d.out.b[:n:n]
	if err := d.decode(dst, block, body); err != nil {
		return 0, err
	}
	d.unread = dst
	return 0, nil
}

// decode decodes block into dst, whose length is the one that block declares, and
// compares the checksum at the front of body.
func (d *decoder) decode(dst, block, body []byte) error {
	if _, err := s2.Decode(dst, block); err != nil {
		return d.corrupt("its block cannot be decoded")
	}
	return d.check(binary.LittleEndian.Uint32(body), checksum(dst))
}

// uncompressed begins an uncompressed chunk.
func (d *decoder) uncompressed(size int) error {
	if size < checksumLen || size > checksumLen+maxBlock {
		return d.corrupt("it is uncompressed and has %d bytes; the format allows %d to %d",
			size, checksumLen, checksumLen+maxBlock)
	}
	b, err := d.in.next(checksumLen)
	if err != nil {
		return d.short(err)
	}
	d.stored, d.crc, d.want = size-checksumLen, 0, binary.LittleEndian.Uint32(b)
	if d.stored == 0 {
		return d.check(d.want, mask(0))
	}
	return nil
}

// readStored copies part of an uncompressed chunk to p. It checks the chunk's checksum
// before it returns the last byte.
func (d *decoder) readStored(p []byte) (int, error) {
	p = p[:min(len(p), d.stored)]
	n, err := d.in.readFull(p)
	if err != nil {
		return 0, d.short(err)
	}
	d.crc = crc32.Update(d.crc, castagnoli, p)
	d.stored -= n
	if d.stored == 0 {
		if err := d.check(d.want, mask(d.crc)); err != nil {
			return 0, err
		}
	}
	return n, nil
}

func (d *decoder) check(want, got uint32) error {
	if want != got {
		return d.corrupt("its checksum is 0x%08x, but that of its data is 0x%08x", want, got)
	}
	return nil
}

func (d *decoder) corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: the chunk at byte %d: %s", ErrCorrupt, d.chunk, fmt.Sprintf(format, args...))
}

// short turns the end of the input inside a chunk into an ErrCorrupt. It returns any
// other error, and nil, as it is.
func (d *decoder) short(err error) error {
	if !isEnd(err) {
		return err
	}
	return d.corrupt("the message ends inside it, at byte %d", d.in.pos)
}
