package snappy

import (
	"errors"
	"fmt"
	"io"
)

// viewLimit is the longest message that is looked at in gRPC's own memory. Data
// arrives in HTTP/2 frames of 16 KiB unless a peer was told otherwise, so a longer
// one is never in one piece. The limit also bounds the cost of finding out that a
// peer has sent its message in frames of a byte each.
const viewLimit = 16 << 10

// peeker is what input needs of gRPC's *mem.Reader. The readers of grpc-go before
// 1.77 have no Peek; what they hold is copied.
type peeker interface {
	Remaining() int
	Peek(n int, parts [][]byte) ([][]byte, error)
	Discard(n int) (int, error)
}

// input is the compressed message. It hands out the next n bytes, without copying
// them when the message is short and in one piece.
type input struct {
	r io.Reader
	// view, when viewed is set, is all unread input: memory of src, which owns it
	// until release has discarded it there.
	view   []byte
	src    peeker
	viewed bool
	// pos counts the bytes handed out, for error messages.
	pos   int64
	long  *scratch
	parts [1][]byte // for Peek, which appends; here so that it need not allocate
	short [512]byte
}

func (in *input) reset(r io.Reader) {
	in.r = r
	src, ok := r.(peeker)
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

// release lets go of everything. It gives gRPC's buffers back, since gRPC does not
// when a message has been read successfully.
func (in *input) release() {
	if in.viewed {
		_, _ = in.src.Discard(in.src.Remaining()) // cannot fail: these bytes were seen
	}
	in.long.put()
	in.r, in.view, in.src, in.viewed, in.pos, in.long, in.parts[0] = nil, nil, nil, false, 0, nil, nil
}

// next returns the next n bytes, at most a chunk's, valid until the next call. The
// error is io.EOF when there is no byte, io.ErrUnexpectedEOF (with what there is)
// when there are fewer than n, and otherwise the source's own.
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

// readFull fills b, with the errors of next.
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

// done reports whether it is certain that no input is left. It says so only of short
// messages.
func (in *input) done() bool { return in.viewed && len(in.view) == 0 }

// skip passes over n bytes, with the errors of next.
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

// isEnd reports whether err, from next, is that the input has ended.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
