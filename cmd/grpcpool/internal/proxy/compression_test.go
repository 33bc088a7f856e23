package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/experimental"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/proxy"
	"github.com/davidwartell/go-grpcpool/snappy"
)

// A proxy that forwards compressed messages replaces gRPC's compressors. So here it runs in
// a process of its own: the test binary, started with these arguments.
const (
	childTarget = "GRPCPOOL_TEST_PROXY_TO"
	childSocket = "GRPCPOOL_TEST_PROXY_SOCKET"
)

func runChild(target string) int {
	proxy.RegisterEncodings(proxy.DefaultEncodings()...)
	p, err := proxy.New(proxy.Config{Upstream: upstreamTo(target)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	l, err := proxy.Listen(context.Background(), "unix", os.Getenv(childSocket), proxy.Access{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		io.Copy(io.Discard, os.Stdin) // ends with the test
		p.Shutdown(context.Background())
	}()
	fmt.Println("ready")
	if err := p.Serve(l); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// newChild starts a proxy in a process of its own.
func newChild(t *testing.T, target string) *through {
	t.Helper()
	path := filepath.Join(t.TempDir(), "p.sock")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childTarget+"="+target, childSocket+"="+path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the proxy's process: %v: %s", err, stderr.String())
		}
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the proxy's process said %q, %v: %s", line, err, stderr.String())
	}
	return &through{path: path}
}

// witness records how messages were encoded, as seen by one side.
type witness struct {
	mu   sync.Mutex // guards seen
	seen seen
}

type seen struct {
	headers  []string // encodings named in the headers received
	messages []string // received: "compressed" or "plain"
	offered  []string // values of grpc-accept-encoding
}

func (w *witness) HandleRPC(_ context.Context, rs stats.RPCStats) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch rs := rs.(type) {
	case *stats.InHeader:
		if strings.HasPrefix(rs.FullMethod, "/grpc.health.v1.") {
			return // the pool's own
		}
		w.seen.headers = append(w.seen.headers, rs.Compression)
		w.seen.offered = append(w.seen.offered, strings.Join(rs.Header.Get("grpc-accept-encoding"), ","))
	case *stats.InPayload:
		kind := "plain"
		if rs.CompressedLength != rs.Length {
			kind = "compressed"
		}
		w.seen.messages = append(w.seen.messages, kind)
	}
}
func (*witness) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*witness) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*witness) HandleConn(context.Context, stats.ConnStats)                       {}

func (w *witness) take() seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	took := w.seen
	w.seen = seen{}
	return took
}

// echoServer echoes requests, in the encoding named by the message of the request's
// response status.
type echoServer struct {
	testpb.UnimplementedTestServiceServer
}

func (echoServer) UnaryCall(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if as := in.GetResponseStatus().GetMessage(); as != "" {
		if err := grpc.SetSendCompressor(ctx, as); err != nil {
			return nil, err
		}
	}
	return &testpb.SimpleResponse{Payload: in.GetPayload()}, nil
}

func (echoServer) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: in.GetPayload()}); err != nil {
			return err
		}
	}
}

func payload(n int) *testpb.Payload {
	return &testpb.Payload{Body: bytes.Repeat([]byte("abcdefgh"), n/8)}
}

func TestCompressionIsKeptInBothDirections(t *testing.T) {
	atServer, atClient := new(witness), new(witness)
	target := backend(t, func(s *grpc.Server) { testpb.RegisterTestServiceServer(s, echoServer{}) }, grpc.StatsHandler(atServer))
	client := testpb.NewTestServiceClient(newChild(t, target).client(t, grpc.WithStatsHandler(atClient)))
	for name, test := range map[string]struct {
		opts             []grpc.CallOption
		answerIn         string
		request, respond string // the encodings
	}{
		"none":                      {nil, "", "", ""},
		"gzip":                      {[]grpc.CallOption{grpc.UseCompressor("gzip")}, "", "gzip", "gzip"},
		"snappy":                    {[]grpc.CallOption{grpc.UseCompressor(snappy.Name)}, "", "snappy", "snappy"},
		"only the answer":           {nil, "gzip", "", "gzip"},
		"only the request":          {[]grpc.CallOption{grpc.UseCompressor("gzip")}, "identity", "gzip", "identity"},
		"the answer in another one": {[]grpc.CallOption{grpc.UseCompressor("gzip")}, "snappy", "gzip", "snappy"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{64, 10_000, 1 << 20} {
				atServer.take()
				atClient.take()
				in := &testpb.SimpleRequest{Payload: payload(size)}
				if test.answerIn != "" {
					in.ResponseStatus = &testpb.EchoStatus{Message: test.answerIn}
				}
				out, err := client.UnaryCall(testContext(t), in, test.opts...)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(out.GetPayload().GetBody(), in.GetPayload().GetBody()) {
					t.Fatalf("%d bytes came back changed", size)
				}
				seen, answered := atServer.take(), atClient.take()
				if !slices.Equal(seen.headers, []string{test.request}) || !slices.Equal(seen.messages, []string{kind(test.request)}) {
					t.Errorf("the server saw %q %q, want %q", seen.headers, seen.messages, test.request)
				}
				if !slices.Equal(answered.headers, []string{test.respond}) || !slices.Equal(answered.messages, []string{kind(test.respond)}) {
					t.Errorf("the client saw %q %q, want %q", answered.headers, answered.messages, test.respond)
				}
			}
		})
	}
}

func kind(name string) string {
	if name == "" || name == encoding.Identity {
		return "plain"
	}
	return "compressed"
}

func TestAStreamsMessagesKeepTheirFlags(t *testing.T) {
	atServer := new(witness)
	target := backend(t, func(s *grpc.Server) { testpb.RegisterTestServiceServer(s, echoServer{}) }, grpc.StatsHandler(atServer))
	cc := newChild(t, target).client(t)
	client := testpb.NewTestServiceClient(cc)
	other, err := client.FullDuplexCall(testContext(t)) // for uncompressed messages
	if err != nil {
		t.Fatal(err)
	}
	stream, err := client.FullDuplexCall(testContext(t), grpc.UseCompressor("gzip"))
	if err != nil {
		t.Fatal(err)
	}
	atServer.take()
	want := make([]string, 0, 6)
	for i := range 6 {
		m := &testpb.StreamingOutputCallRequest{Payload: payload(1000 * (i + 1))}
		how := "compressed"
		if i%2 == 1 {
			var prepared grpc.PreparedMsg
			if err := prepared.Encode(other, m); err != nil {
				t.Fatal(err)
			}
			err, how = stream.SendMsg(&prepared), "plain"
		} else {
			err = stream.Send(m)
		}
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, how)
		back, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if len(back.GetPayload().GetBody()) != 1000*(i+1) {
			t.Errorf("message %d came back with %d bytes", i, len(back.GetPayload().GetBody()))
		}
	}
	if got := atServer.take().messages; !slices.Equal(got, want) {
		t.Errorf("the server saw %q, want %q", got, want)
	}
	for _, s := range []testpb.TestService_FullDuplexCallClient{stream, other} {
		if err := s.CloseSend(); err != nil {
			t.Error(err)
		}
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("the stream ended with %v", err)
		}
	}
}

func TestAServerIsOfferedWhatTheClientCanRead(t *testing.T) {
	atServer := new(witness)
	target := backend(t, func(s *grpc.Server) { testpb.RegisterTestServiceServer(s, echoServer{}) }, grpc.StatsHandler(atServer))
	client := testpb.NewTestServiceClient(newChild(t, target).client(t))
	for want, opts := range map[string][]grpc.CallOption{
		"gzip":        {experimental.AcceptCompressors("gzip")},
		"snappy":      {experimental.AcceptCompressors("snappy")},
		"gzip,snappy": {experimental.AcceptCompressors("gzip", "snappy")},
	} {
		atServer.take()
		if _, err := client.UnaryCall(testContext(t), &testpb.SimpleRequest{}, opts...); err != nil {
			t.Fatal(err)
		}
		if got := atServer.take().offered; !slices.Equal(got, []string{want}) {
			t.Errorf("the server was offered %q, want %q", got, want)
		}
	}
	// The server itself refuses an encoding that the client did not offer.
	_, err := client.UnaryCall(testContext(t), &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Message: "snappy"}},
		experimental.AcceptCompressors("gzip"))
	if status.Code(err) != codes.Unknown || !strings.Contains(err.Error(), "snappy") {
		t.Errorf("got %v", err)
	}
}

// reversing is an encoding that the proxy does not know.
type reversing struct{}

func (reversing) Name() string                                 { return "reversed" }
func (reversing) Decompress(r io.Reader) (io.Reader, error)    { return r, nil }
func (reversing) Compress(w io.Writer) (io.WriteCloser, error) { return nopCloser{w}, nil }

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func init() {
	if os.Getenv(childTarget) == "" {
		encoding.RegisterCompressor(reversing{})
	}
}

func TestAnUnknownEncodingIsUnimplemented(t *testing.T) {
	target := backend(t, func(s *grpc.Server) { testpb.RegisterTestServiceServer(s, echoServer{}) })
	client := testpb.NewTestServiceClient(newChild(t, target).client(t))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{Payload: payload(100)}, grpc.UseCompressor("reversed"))
	if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), `"reversed"`) {
		t.Errorf("got %v, want UNIMPLEMENTED that names the encoding", err)
	}
}
