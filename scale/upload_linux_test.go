package scale_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/scale"
)

// uploads counts what it is sent.
type uploads struct {
	testpb.UnimplementedTestServiceServer
}

func (uploads) StreamingInputCall(stream testpb.TestService_StreamingInputCallServer) error {
	for {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return stream.SendAndClose(&testpb.StreamingInputCallResponse{})
		} else if err != nil {
			return err
		}
	}
}

// slowUp relays connections to addr, and what goes up at the given rate: its kernel
// takes megabytes at once. While stopped it takes nothing out of there.
func slowUp(t *testing.T, addr string, bytesPerSecond int, stopped *atomic.Bool) string {
	t.Helper()
	return relayed(t, addr, func(ctx context.Context, client, server net.Conn) {
		bothWays(func() { passSlowly(ctx, server, client, bytesPerSecond, stopped) }, func() { pass(client, server) })
	})
}

// newUpload makes a channel to a server with large windows behind slowUp, and a stream.
func newUpload(t *testing.T, bytesPerSecond int, stopped *atomic.Bool, opts ...grpc.DialOption) (*channel, testpb.TestService_StreamingInputCallClient) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.StaticStreamWindowSize(8<<20), grpc.StaticConnWindowSize(16<<20))
	testpb.RegisterTestServiceServer(server, uploads{})
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	c := newChannel(t, slowUp(t, l.Addr().String(), bytesPerSecond, stopped), opts...)
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	stream, err := c.stub.StreamingInputCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return c, stream
}

// send sends so many pieces of half a MiB, or fewer if the stream ends.
func send(stream testpb.TestService_StreamingInputCallClient, pieces int) {
	piece := &testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: make([]byte, 1<<19)}}
	for range pieces {
		if stream.Send(piece) != nil {
			return
		}
	}
}

// Row 18, the other way: the question of a probe comes behind what was sent before. How
// much of that the proxy's kernel takes at once, and how much waits here, differs.
func TestAProbeBehindAnUploadKillsNothing(t *testing.T) {
	for name, pieces := range map[string]int{"much": 14, "as much as the proxy's kernel takes": 7} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, stream := newUpload(t, 2<<20, new(atomic.Bool), scale.WithProbeTimeout(300*time.Millisecond))
			send(stream, pieces)
			if _, err := stream.CloseAndRecv(); err != nil {
				t.Fatalf("the upload ended with %v", err)
			}
			eventually(t, "there was a probe", func() bool { return c.observer.Snapshot().Subchannels[0].Probes > 0 })
			if sub := c.observer.Snapshot().Subchannels[0]; sub.Ejected != 0 || sub.Opened != 1 {
				t.Errorf("after the upload: %+v", sub)
			}
		})
	}
}

// A proxy that takes nothing any more is found out, be it by a probe or by the kernel,
// whose patience with it is bounded too.
func TestAnUploadThatMovesNoMoreIsEnded(t *testing.T) {
	stopped := new(atomic.Bool)
	c, stream := newUpload(t, 4<<20, stopped, scale.WithProbeTimeout(300*time.Millisecond))
	send(stream, 2)
	eventually(t, "a probe has found its way", func() bool { return c.observer.Snapshot().Subchannels[0].Probes > 0 })
	stopped.Store(true)
	go send(stream, 100)
	if err := stream.RecvMsg(new(testpb.StreamingInputCallResponse)); status.Code(err) != codes.Unavailable {
		t.Errorf("the upload ended with %v", err)
	}
}
