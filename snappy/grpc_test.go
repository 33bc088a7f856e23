package snappy_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/davidwartell/go-grpcpool/snappy"
)

// The service under test answers with what it was sent.
const echoMethod = "/test.Echo/Echo"

var echoService = grpc.ServiceDesc{
	ServiceName: "test.Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Echo",
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			m := new(wrapperspb.BytesValue)
			return m, decode(m)
		},
	}},
}

// wire notes what went over the wire, as a stats.Handler of the server.
type wire struct {
	stats.Handler

	encoding            string
	received, sent      int // on the wire
	receivedAs, sentFor int // without compression
}

func (w *wire) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (w *wire) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (w *wire) HandleConn(context.Context, stats.ConnStats)                       {}

func (w *wire) HandleRPC(_ context.Context, s stats.RPCStats) {
	switch s := s.(type) {
	case *stats.InHeader:
		w.encoding = s.Compression
	case *stats.InPayload:
		w.received, w.receivedAs = s.CompressedLength, s.Length
	case *stats.OutPayload:
		w.sent, w.sentFor = s.CompressedLength, s.Length
	}
}

// serve starts an echo server and returns its address.
func serve(t *testing.T, opts ...grpc.ServerOption) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(opts...)
	s.RegisterService(&echoService, nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(lis)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return lis.Addr().String()
}

func dial(t *testing.T, addr string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(addr, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

func echo(t *testing.T, cc *grpc.ClientConn, message []byte, opts ...grpc.CallOption) error {
	t.Helper()
	reply := new(wrapperspb.BytesValue)
	err := cc.Invoke(t.Context(), echoMethod, wrapperspb.Bytes(message), reply, opts...)
	if err == nil && !bytes.Equal(reply.GetValue(), message) {
		t.Errorf("the echo of %d bytes differs", len(message))
	}
	return err
}

func TestCallsTravelCompressedBothWays(t *testing.T) {
	w := new(wire)
	cc := dial(t, serve(t, grpc.StatsHandler(w)))
	for _, size := range []int{1, 100, 10 << 10, 100 << 10, 1 << 20} {
		if err := echo(t, cc, textOf(size), grpc.UseCompressor(snappy.Name)); err != nil {
			t.Fatal(err)
		}
		if w.encoding != "snappy" || size > 1000 && (w.received > w.receivedAs/2 || w.sent > w.sentFor/2) {
			t.Errorf("%d bytes went as %+v", size, *w)
		}
	}
}

func TestTheReceiveLimitHoldsForTheDecompressedSize(t *testing.T) {
	const limit = 1 << 20
	cc := dial(t, serve(t, grpc.MaxRecvMsgSize(limit)))
	overhead := proto.Size(wrapperspb.Bytes(make([]byte, limit))) - limit
	for _, c := range []struct {
		size int
		want codes.Code
	}{
		{limit - 1, codes.OK},
		{limit, codes.OK},
		{limit + 1, codes.ResourceExhausted},
		{64 << 20, codes.ResourceExhausted}, // a bomb: 3 MiB on the wire
	} {
		err := echo(t, cc, make([]byte, c.size-overhead), grpc.UseCompressor(snappy.Name))
		if status.Code(err) != c.want {
			t.Errorf("a message of %d bytes, limit %d: %v, want %v", c.size, limit, err, c.want)
		}
	}
}

func TestTheStatusSaysWhatCame(t *testing.T) {
	addr := serve(t)
	for name, body := range map[string]string{
		"xerial stream":         "\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00",
		"raw snappy block":      "\x05\x10hello",
		"it may be an S2 block": string(stream(compressed(make([]byte, 65536), s2Repeat))),
		"at byte 10":            string(stream(flip(stored([]byte("hello")), 6))),
	} {
		code, message := post(t, addr, []byte(body))
		if code != "13" || !strings.Contains(message, "snappy: ") || !strings.Contains(message, name) {
			t.Errorf("%s: status %s, %q", name, code, message)
		}
	}
}

// post sends one message, compressed already, and returns the status of the answer.
func post(t *testing.T, addr string, message []byte) (code, text string) {
	t.Helper()
	body := append([]byte{1}, binary.BigEndian.AppendUint32(nil, uint32(len(message)))...)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+echoMethod, bytes.NewReader(append(body, message...)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	req.Header.Set("Grpc-Encoding", "snappy")
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	for _, h := range []http.Header{resp.Trailer, resp.Header} { // trailers only come as headers
		if h.Get("Grpc-Status") != "" {
			return h.Get("Grpc-Status"), h.Get("Grpc-Message")
		}
	}
	t.Fatalf("no status: %v", resp)
	return "", ""
}
