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

// A compressed message passes as it is. gRPC hands messages to codecs after it has
// decompressed them, by the compressor that is registered under the name in
// grpc-encoding; so here that compressor does nothing but to put a mark before the
// bytes, and the codec sees by the mark that they are compressed. On the way out
// the codec puts the mark back, and the compressor takes it off. Each message
// keeps its own flag: one without a mark is sent uncompressed, see plain.
//
// The mark is random and never leaves the process, so that no peer can send one.

const markSize = 16

var mark = sync.OnceValue(func() []byte {
	b := make([]byte, markSize)
	_, _ = rand.Read(b) // never fails
	return b
})

func marker() mem.Buffer { return mem.SliceBuffer(mark()) }

// unmark returns data without its mark, and a reference to it, if it has one. The
// mark lies within one buffer, as rawReader and gRPC's mem.ReadAll put it there.
func unmark(data mem.BufferSlice) (_ mem.BufferSlice, marked bool) {
	if len(data) == 0 || !bytes.HasPrefix(data[0].ReadOnlyData(), mark()) {
		return data, false
	}
	own := slices.Clone(data) // the array is gRPC's
	own[0] = data[0].Slice(markSize, data[0].Len())
	own[1:].Ref()
	return own, true
}

// noEncoding is offered to servers when the client offers nothing: without an
// offer of its own gRPC would name every compressor that is registered.
const noEncoding = "x-uncompressed"

// DefaultEncodings are those that gRPC implementations are known to use.
func DefaultEncodings() []string { return []string{"gzip", "deflate", "snappy", "zstd", "lz4", "br"} }

// RegisterEncodings makes messages in these encodings pass as they are. It
// replaces gRPC's compressors of these names, so that nothing else in the process
// can use them, and must be called before the process uses gRPC. A call in any
// other encoding is answered UNIMPLEMENTED.
func RegisterEncodings(names ...string) {
	for _, name := range append(slices.Clone(names), noEncoding) {
		encoding.RegisterCompressor(rawCompressor(name))
	}
}

// rawCompressor is a compressor, by name, that changes nothing.
type rawCompressor string

// Name implements encoding.Compressor.
func (c rawCompressor) Name() string { return string(c) }

// Compress implements encoding.Compressor for messages that have a mark.
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

// Write implements io.Writer. The mark comes alone, as codec.Marshal put it.
func (w *rawWriter) Write(p []byte) (int, error) {
	if w.marked {
		return w.w.Write(p)
	}
	if !bytes.Equal(p, mark()) {
		return 0, fmt.Errorf("proxy: in this process %s is not for compressing", w.name)
	}
	w.marked = true
	return len(p), nil
}

// Close implements io.Closer.
func (*rawWriter) Close() error { return nil }

type rawReader struct {
	r    io.Reader
	mark []byte // what is left of it
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

// plain prepares m for sending on a stream with an encoding, uncompressed as it
// came. gRPC compresses every message of such a stream save those that were
// prepared for another.
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

// uncompressedStream is a stream without an encoding, for PreparedMsg.Encode. It
// is over: what gRPC wants of it stands in its context, and only a stream's
// context has it.
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
	defer cc.Close() //nolint:errcheck // it has done its work
	if err := cc.Invoke(context.Background(), "/self/self", &message{}, &message{}, grpc.ForceCodecV2(codec{})); err != nil {
		select {
		case s := <-found:
			return s, nil // the handler answers nothing, which the client finds wrong
		default:
			return endedStream{}, fmt.Errorf("proxy: %w", err)
		}
	}
	return endedStream{}, errors.New("proxy: the stream did not come")
})

type endedStream struct {
	ctx context.Context //nolint:containedctx // it is what the stream is wanted for
}

func (s endedStream) Context() context.Context { return s.ctx }
func (endedStream) SendMsg(any) error          { return io.EOF }
func (endedStream) RecvMsg(any) error          { return io.EOF }
