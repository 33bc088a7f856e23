package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/proxy"
)

// scripted is a server whose streaming handler is a func of the test.
type scripted struct {
	testpb.UnimplementedTestServiceServer

	full func(testpb.TestService_FullDuplexCallServer) error
}

func (s scripted) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	return s.full(stream)
}

// script starts such a server and returns a client that reaches it through a proxy.
func script(t *testing.T, full func(testpb.TestService_FullDuplexCallServer) error, change ...func(*proxy.Config)) testpb.TestServiceClient {
	t.Helper()
	target := backend(t, func(s *grpc.Server) { testpb.RegisterTestServiceServer(s, scripted{full: full}) })
	return testpb.NewTestServiceClient(newProxy(t, target, change...).client(t))
}

func TestMetadataPassesBothWaysSaveHopHeaders(t *testing.T) {
	seen := make(chan metadata.MD, 1)
	client := script(t, func(s testpb.TestService_FullDuplexCallServer) error {
		md, _ := metadata.FromIncomingContext(s.Context())
		seen <- md
		s.SetHeader(metadata.Pairs("x-head", "a", "x-head", "b", "x-bin", "\x00\xff\x01"))
		s.SendHeader(nil)
		s.SetTrailer(metadata.Pairs("x-tail", "c", "y-bin", "\xfe\x00"))
		return nil
	})
	ctx := metadata.AppendToOutgoingContext(testContext(t),
		"x-text", "one", "x-text", "two", "x-data-bin", "\x00\x01\xff", "authorization", "Bearer theirs",
		"proxy-authorization", "Bearer ours", "keep-alive", "1", "grpc-trace-bin", "trace")
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	header, err := stream.Header()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	got := <-seen
	for _, own := range []string{":authority", "user-agent", "content-type", "grpc-accept-encoding"} {
		if len(got[own]) != 1 {
			t.Errorf("the server sees %q as %q, want the one of this hop", own, got[own])
		}
		delete(got, own)
	}
	if diff := cmp.Diff(metadata.MD{
		"x-text": {"one", "two"}, "x-data-bin": {"\x00\x01\xff"}, "authorization": {"Bearer theirs"}, "grpc-trace-bin": {"trace"},
	}, got); diff != "" {
		t.Errorf("the server's metadata: %s", diff)
	}
	delete(header, "content-type")
	if diff := cmp.Diff(metadata.MD{"x-head": {"a", "b"}, "x-bin": {"\x00\xff\x01"}}, header); diff != "" {
		t.Errorf("headers: %s", diff)
	}
	if diff := cmp.Diff(metadata.MD{"x-tail": {"c"}, "y-bin": {"\xfe\x00"}}, stream.Trailer()); diff != "" {
		t.Errorf("trailers: %s", diff)
	}
}

func TestAStatusPassesWithItsDetails(t *testing.T) {
	want, err := status.New(codes.FailedPrecondition, "not so \u00fc\n").WithDetails(
		protoadapt.MessageV1Of(&testpb.Empty{}), protoadapt.MessageV1Of(&testpb.EchoStatus{Message: "here"}))
	if err != nil {
		t.Fatal(err)
	}
	for name, headers := range map[string]bool{"after headers": true, "trailers only": false} {
		t.Run(name, func(t *testing.T) {
			client := script(t, func(s testpb.TestService_FullDuplexCallServer) error {
				if headers {
					s.SendHeader(metadata.Pairs("a", "b"))
				}
				s.SetTrailer(metadata.Pairs("c", "d"))
				return want.Err()
			})
			stream, err := client.FullDuplexCall(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			_, err = stream.Recv()
			if diff := cmp.Diff(want.Proto(), status.Convert(err).Proto(), protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
			header, _ := stream.Header()
			if got := header.Get("a"); (len(got) == 1) != headers {
				t.Errorf("header a: %q", got)
			}
			if got := stream.Trailer().Get("c"); !cmp.Equal(got, []string{"d"}) {
				t.Errorf("trailer c: %q", got)
			}
		})
	}
}

// The client has sent nothing, and the server no message.
func TestHeadersComeAsSoonAsTheServerSendsThem(t *testing.T) {
	client := script(t, func(s testpb.TestService_FullDuplexCallServer) error {
		s.SendHeader(metadata.Pairs("soon", "yes"))
		<-s.Context().Done()
		return nil
	})
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if header, err := stream.Header(); err != nil || len(header.Get("soon")) != 1 {
		t.Errorf("headers %v, %v", header, err)
	}
}

func TestHalfCloseComesAfterTheLastMessageAndLeavesTheOtherHalfOpen(t *testing.T) {
	client := script(t, func(s testpb.TestService_FullDuplexCallServer) error {
		n := 0
		for {
			if _, err := s.Recv(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return err
			}
			n++
		}
		for range n { // only now
			if err := s.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
				return err
			}
		}
		return nil
	})
	stream, err := client.FullDuplexCall(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	stream.CloseSend()
	for range 100 {
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ended with %v", err)
	}
}

func TestTheEndsOfAClientsCallReachTheServer(t *testing.T) {
	for name, end := range map[string]func(*grpc.ClientConn, context.CancelFunc){
		"cancelled":            func(_ *grpc.ClientConn, cancel context.CancelFunc) { cancel() },
		"its connection ended": func(cc *grpc.ClientConn, _ context.CancelFunc) { cc.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			begun, ended := make(chan struct{}), make(chan error, 1)
			target := backend(t, func(s *grpc.Server) {
				testpb.RegisterTestServiceServer(s, scripted{full: func(s testpb.TestService_FullDuplexCallServer) error {
					close(begun)
					<-s.Context().Done()
					ended <- s.Context().Err()
					return nil
				}})
			})
			cc := newProxy(t, target).client(t)
			ctx, cancel := context.WithCancel(testContext(t))
			defer cancel()
			if _, err := testpb.NewTestServiceClient(cc).FullDuplexCall(ctx); err != nil {
				t.Fatal(err)
			}
			<-begun
			end(cc, cancel)
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("the server's context ended with %v", err)
			}
		})
	}
}

func TestADeadlinePassesOn(t *testing.T) {
	left := make(chan time.Duration, 1)
	client := script(t, func(s testpb.TestService_FullDuplexCallServer) error {
		d, ok := s.Context().Deadline()
		if !ok {
			d = time.Time{}
		}
		left <- time.Until(d)
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stream.Recv()
	if d := <-left; d > time.Hour || d < 59*time.Minute {
		t.Errorf("the server has %v, want just below an hour", d)
	}
}

// A server that does not read makes the client wait. The data between them is bounded by
// the flow-control windows of both hops.
func TestWhoDoesNotReadMakesTheOtherWait(t *testing.T) {
	read := make(chan struct{})
	got := make(chan int, 1)
	client := script(t, func(s testpb.TestService_FullDuplexCallServer) error {
		<-read
		n := 0
		for {
			m, err := s.Recv()
			if err != nil {
				got <- n
				return err
			}
			n += len(m.GetPayload().GetBody())
		}
	})
	stream, err := client.FullDuplexCall(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	const piece, most = 16 << 10, 4 << 20
	sent := make(chan int, 1000)
	go func() {
		defer close(sent)
		for range most / piece * 4 {
			if stream.Send(&testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: make([]byte, piece)}}) != nil {
				return
			}
			sent <- piece
		}
		stream.CloseSend()
	}()
	total := 0
	for waiting := false; !waiting; {
		select {
		case n := <-sent:
			total += n
		case <-time.After(500 * time.Millisecond):
			waiting = true
		}
	}
	if total >= most {
		t.Errorf("%d bytes were sent to a server that reads nothing, want less than %d", total, most)
	}
	close(read)
	for n := range sent {
		total += n
	}
	if n := <-got; n != total || total != 4*most {
		t.Errorf("%d bytes were sent and %d came, want %d", total, n, 4*most)
	}
}

func TestContentSubtypesPass(t *testing.T) {
	seen := make(chan []string, 2)
	target := backend(t, func(s *grpc.Server) {
		testpb.RegisterTestServiceServer(s, scripted{full: func(s testpb.TestService_FullDuplexCallServer) error {
			md, _ := metadata.FromIncomingContext(s.Context())
			seen <- md["content-type"]
			return nil
		}})
	})
	client := testpb.NewTestServiceClient(newProxy(t, target).client(t))
	for want, opts := range map[string][]grpc.CallOption{
		"application/grpc":       nil,
		"application/grpc+proto": {grpc.CallContentSubtype("proto")},
	} {
		stream, err := client.FullDuplexCall(testContext(t), opts...)
		if err != nil {
			t.Fatal(err)
		}
		stream.Recv()
		header, _ := stream.Header()
		_ = header
		if got := <-seen; !cmp.Equal(got, []string{want}) {
			t.Errorf("the server sees content type %q, want %q", got, want)
		}
	}
}

func TestBytesPassWhateverTheyAre(t *testing.T) {
	client := script(t, func(s testpb.TestService_FullDuplexCallServer) error {
		return echoServer{}.FullDuplexCall(s)
	})
	stream, err := client.FullDuplexCall(testContext(t), grpc.MaxCallRecvMsgSize(20<<20))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 15, 16, 17, 4095, 4096, 32767, 32768, 65535, 65536, 1 << 20, 3_999_999} {
		body := bytes.Repeat([]byte{byte(n), 0, 255, byte(n >> 8)}, n/4+1)[:n]
		if err := stream.Send(&testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: body}}); err != nil {
			t.Fatal(err)
		}
		m, err := stream.Recv()
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if !bytes.Equal(m.GetPayload().GetBody(), body) {
			t.Errorf("%d bytes came back changed", n)
		}
	}
	stream.CloseSend()
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func TestLargeStatusDetailsPass(t *testing.T) {
	const size = 100_000
	st, err := status.New(codes.FailedPrecondition, "see the details").WithDetails(&testpb.Payload{Body: make([]byte, size)})
	if err != nil {
		t.Fatal(err)
	}
	client := script(t, func(testpb.TestService_FullDuplexCallServer) error { return st.Err() })
	stream, err := client.FullDuplexCall(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	got := status.Convert(err)
	if d := got.Details(); got.Code() != codes.FailedPrecondition || len(d) != 1 || len(d[0].(*testpb.Payload).GetBody()) != size {
		t.Errorf("%v with %d details", got.Code(), len(d))
	}
}
