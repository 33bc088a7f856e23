package compressors

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// maxMessage is the limit a receiver has set.
const maxMessage = 4 << 20

// frameSize is how gRPC's transport cuts a message.
const frameSize = 16 << 10

// RoundTrip takes a message through a compressor and back, in gRPC's buffers. It
// returns the length of the compressed message, and what became of it, to be freed.
func RoundTrip(c encoding.Compressor, message []byte) (wire int, got mem.BufferSlice, err error) {
	sent, err := compress(c, message)
	if err != nil {
		return 0, nil, fmt.Errorf("compressing: %w", err)
	}
	wire = sent.Len()
	got, err = decompress(c, frames(sent))
	if err != nil {
		return 0, nil, fmt.Errorf("decompressing: %w", err)
	}
	return wire, got, nil
}

// CheckedRoundTrip is RoundTrip, and an error if the message is not what it was.
func CheckedRoundTrip(c encoding.Compressor, message []byte) (wire int, err error) {
	wire, got, err := RoundTrip(c, message)
	if err != nil {
		return 0, err
	}
	defer got.Free()
	if !bytes.Equal(got.Materialize(), message) {
		return 0, errors.New("the message changed on its way")
	}
	return wire, nil
}

// compress does what gRPC does with a message to be sent.
func compress(c encoding.Compressor, message []byte) (mem.BufferSlice, error) {
	var out mem.BufferSlice
	z, err := c.Compress(mem.NewWriter(&out, mem.DefaultBufferPool()))
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(message); err != nil {
		return nil, err
	}
	return out, z.Close()
}

// frames cuts sent data as it would arrive, without copying it, so that only the
// compressors are measured.
func frames(sent mem.BufferSlice) mem.BufferSlice {
	received := make(mem.BufferSlice, 0, 2+sent.Len()/frameSize+len(sent))
	for _, b := range sent {
		for b.Len() > frameSize {
			var head mem.Buffer
			head, b = mem.SplitUnsafe(b, frameSize)
			received = append(received, head)
		}
		received = append(received, b)
	}
	return received
}

// decompress does what gRPC does with a message that has come.
func decompress(c encoding.Compressor, received mem.BufferSlice) (mem.BufferSlice, error) {
	defer received.Free()
	r, err := c.Decompress(received.Reader())
	if err != nil {
		return nil, err
	}
	if closer, ok := r.(io.Closer); ok {
		defer closer.Close() //nolint:errcheck // gRPC asks for no error either
	}
	return mem.ReadAll(io.LimitReader(r, maxMessage+1), mem.DefaultBufferPool())
}
