package proxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/test/bufconn"
)

// Compressed messages pass through as they are. gRPC decompresses a message with the
// compressor registered under the name in grpc-encoding, and then passes it to the codec.
// The compressors registered here do not decompress: they only put a mark before the
// bytes, which tells the codec that these are compressed. On the way out the codec puts
// the mark back and the compressor removes it. Each message keeps its own flag: one
// without a mark is sent uncompressed, see plain.
//
// The mark is random and never leaves the process, so that no peer can send it.

const markSize = 16

var mark = sync.OnceValue(func() []byte {
	b := make([]byte, markSize)
	_, _ = rand.Read(b) // it never fails
	return b
})

func marker() mem.Buffer { return mem.SliceBuffer(mark()) }

// unmark returns data without its mark, and with a reference, if it has one. The mark is
// within one buffer: rawReader and gRPC's mem.ReadAll put it there.
func unmark(data mem.BufferSlice) (_ mem.BufferSlice, marked bool) {
	if len(data) == 0 || !bytes.HasPrefix(data[0].ReadOnlyData(), mark()) {
		return data, false
	}
	own := slices.Clone(data) // gRPC owns the array
	own[0] = data[0].Slice(markSize, data[0].Len())
	own[1:].Ref()
	return own, true
}

// noEncoding is offered to the server when the client offers nothing: without an offer
// gRPC would name every registered compressor.
const noEncoding = "x-uncompressed"

// DefaultEncodings returns the encodings that gRPC implementations are known to use.
func DefaultEncodings() []string { return []string{"gzip", "deflate", "snappy", "zstd", "lz4", "br"} }

// RegisterEncodings makes messages in these encodings pass through as they are. It
// replaces gRPC's compressors of these names, so nothing else in the process can use
// them. Call it before the process uses gRPC. Calls in any other encoding are answered
// UNIMPLEMENTED.
func RegisterEncodings(names ...string) {
	for _, name := range append(slices.Clone(names), noEncoding) {
		encoding.RegisterCompressor(rawCompressor(name))
	}
}

// rawCompressor is a compressor of this name that changes nothing.
type rawCompressor string

// Name implements encoding.Compressor.
func (c rawCompressor) Name() string { return string(c) }

// Compress implements encoding.Compressor, for messages with a mark.
func (c rawCompressor) Compress(w io.Writer) (io.WriteCloser, error) {
	return &rawWriter{w: w, name: string(c)}, nil
}

// Decompress implements encoding.Compressor.
func (rawCompressor) Decompress(r io.Reader) (io.Reader, error) {
	return &rawReader{r: r, mark: mark()}, nil
}

type rawWriter struct {
	w      io.Writer
	name   string
	marked bool
}

// Write implements io.Writer. The mark comes in a Write of its own, see codec.Marshal.
func (w *rawWriter) Write(p []byte) (int, error) {
	if w.marked {
		return w.w.Write(p)
	}
	if !bytes.Equal(p, mark()) {
		return 0, fmt.Errorf("proxy: this process cannot compress with %s, only forward what is compressed", w.name)
	}
	w.marked = true
	return len(p), nil
}

// Close implements io.Closer.
func (*rawWriter) Close() error { return nil }

type rawReader struct {
	r    io.Reader
	mark []byte // the part that is not read yet
}

// Read implements io.Reader.
func (r *rawReader) Read(p []byte) (int, error) {
	if len(r.mark) > 0 {
		n := copy(p, r.mark)
		r.mark = r.mark[n:]
		return n, nil
	}
	return r.r.Read(p)
}

// plain prepares m, which came uncompressed, for sending uncompressed on a stream with an
// encoding. gRPC compresses every message of such a stream except those that were
// prepared for another stream.
func plain(m *message) (*grpc.PreparedMsg, error) {
	stream, err := uncompressedStream()
	if err != nil {
		return nil, err
	}
	prepared := new(grpc.PreparedMsg)
	if err := prepared.Encode(stream, m); err != nil {
		return nil, err
	}
	return prepared, nil
}

// uncompressedStream is a stream without an encoding, for PreparedMsg.Encode. It has
// ended: Encode only needs its context, which no other context can replace.
var uncompressedStream = sync.OnceValues(func() (endedStream, error) {
	lis := bufconn.Listen(4 << 10)
	found := make(chan endedStream, 1)
	server := grpc.NewServer(grpc.ForceServerCodecV2(codec{}), grpc.UnknownServiceHandler(
		func(_ any, s grpc.ServerStream) error {
			found <- endedStream{context.WithoutCancel(s.Context())}
			return nil
		}))
	go server.Serve(lis) //nolint:errcheck // ends with Stop below
	defer server.Stop()
	cc, err := grpc.NewClient("passthrough:///self", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		return endedStream{}, fmt.Errorf("proxy: %w", err)
	}
	defer cc.Close() //nolint:errcheck // it is not used any more
	if err := cc.Invoke(context.Background(), "/self/self", &message{}, &message{}, grpc.ForceCodecV2(codec{})); err != nil {
		select {
		case s := <-found:
			return s, nil // the handler sends no answer, which is an error for the client
		default:
			return endedStream{}, fmt.Errorf("proxy: %w", err)
		}
	}
	return endedStream{}, errors.New("proxy: the call did not reach the handler")
})

type endedStream struct {
	ctx context.Context //nolint:containedctx // the stream exists for its context
}

func (s endedStream) Context() context.Context { return s.ctx }
func (endedStream) SendMsg(any) error          { return io.EOF }
func (endedStream) RecvMsg(any) error          { return io.EOF }
