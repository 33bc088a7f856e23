package snappy

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/mem"
)

// viewLimit is the length of the longest message that is read in gRPC's own memory. Data
// arrives in HTTP/2 frames of at most 16 KiB unless the peer was allowed more, so a longer
// message is never in one piece. The limit also bounds the cost of looking at a message
// that a peer has sent in frames of one byte.
const viewLimit = 16 << 10

// input reads the compressed message. It returns the next n bytes without copying them
// if the message is short and in one piece.
type input struct {
	r io.Reader
	// view is all unread input if viewed is set. It is memory of src, which keeps it until
	// release discards it.
	view   []byte
	src    *mem.Reader
	viewed bool
	// pos is the number of bytes returned so far, for error texts.
	pos   int64
	long  *scratch
	parts [1][]byte // for Peek to append to without allocating
	short [512]byte
}

func (in *input) reset(r io.Reader) {
	in.r = r
	src, ok := r.(*mem.Reader)
	if !ok {
		return
	}
	n := src.Remaining()
	if n > viewLimit {
		return
	}
	parts, err := src.Peek(n, in.parts[:0])
	if err == nil && len(parts) == 1 {
		in.view, in.src, in.viewed = parts[0], src, true
	}
}

// release gives all buffers back, gRPC's included, since gRPC does not do so when a
// message has been read successfully.
func (in *input) release() {
	if in.viewed {
		_, _ = in.src.Discard(in.src.Remaining()) // cannot fail: these bytes are there
	}
	in.long.put()
	in.r, in.view, in.src, in.viewed, in.pos, in.long, in.parts[0] = nil, nil, nil, false, 0, nil, nil
}

// next returns the next n bytes, valid until the next call. n is at most the length of a
// chunk. The error is io.EOF if there are no bytes, io.ErrUnexpectedEOF (with the bytes
// that there are) if there are fewer than n, and otherwise that of the source.
func (in *input) next(n int) ([]byte, error) {
	if in.viewed {
		return in.nextViewed(n)
	}
	var b []byte
	if n <= len(in.short) {
		b = in.short[:n]
	} else {
		in.long = in.long.grow(n)
		b = in.long.b[:n]
	}
	k, err := in.readFull(b)
	return b[:k], err
}

func (in *input) nextViewed(n int) ([]byte, error) {
	var err error
	if n > len(in.view) {
		err = io.ErrUnexpectedEOF
		if len(in.view) == 0 {
			err = io.EOF
		}
		n = len(in.view)
	}
	b := in.view[:n:n]
	in.view = in.view[n:]
	in.pos += int64(n)
	return b, err
}

// readFull fills b. Its errors are those of next.
func (in *input) readFull(b []byte) (int, error) {
	if in.viewed {
		v, err := in.nextViewed(len(b))
		return copy(b, v), err
	}
	n, err := io.ReadFull(in.r, b)
	in.pos += int64(n)
	if err != nil && !isEnd(err) {
		err = fmt.Errorf("snappy: reading the compressed message: %w", err)
	}
	return n, err
}

// done reports whether certainly no input is left. It can be true only for short
// messages.
func (in *input) done() bool { return in.viewed && len(in.view) == 0 }

// skip skips n bytes. Its errors are those of next.
func (in *input) skip(n int) error {
	for n > 0 {
		b, err := in.next(min(n, len(in.short)))
		if err != nil {
			return err
		}
		n -= len(b)
	}
	return nil
}

// isEnd reports whether err, from next, means that the input has ended.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
