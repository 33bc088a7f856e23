package scale_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/scale"
)

// downloads answers with as much as it is asked for.
type downloads struct {
	testpb.UnimplementedTestServiceServer
}

func (downloads) StreamingOutputCall(in *testpb.StreamingOutputCallRequest, out testpb.TestService_StreamingOutputCallServer) error {
	for _, p := range in.GetResponseParameters() {
		m := &testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: make([]byte, p.GetSize())}}
		if err := out.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// throttled relays connections to addr, and what comes back at the given rate.
func throttled(t *testing.T, addr string, bytesPerSecond int) string {
	t.Helper()
	return relayed(t, addr, func(ctx context.Context, client, server net.Conn) {
		bothWays(func() { pass(server, client) }, func() { passSlowly(ctx, client, server, bytesPerSecond, nil) })
	})
}

// Row 18 of the fault matrix: an answer to a probe comes behind what the server has
// sent before, which takes longer than a probe may.
func TestAProbeBehindADownloadKillsNothing(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	testpb.RegisterTestServiceServer(server, downloads{})
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	c := newChannel(t, throttled(t, l.Addr().String(), 2<<20), grpc.WithStaticStreamWindowSize(8<<20), grpc.WithStaticConnWindowSize(16<<20), scale.WithProbeTimeout(500*time.Millisecond))
	request := &testpb.StreamingOutputCallRequest{}
	for range 10 {
		request.ResponseParameters = append(request.ResponseParameters, &testpb.ResponseParameters{Size: 1 << 20})
	}
	stream, err := c.stub.StreamingOutputCall(testContext(t), request)
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the download ended with %v", err)
		}
	}
	sub := c.observer.Snapshot().Subchannels[0]
	if sub.Ejected != 0 || sub.Probes == 0 {
		t.Errorf("after the download: %d probes, %d ejected", sub.Probes, sub.Ejected)
	}
	if answered := len(sub.Connections[0].ProbeTimes) - 2; int(sub.Probes) <= answered { // two are the dial's
		t.Errorf("%d probes, %d answered in time: none was stuck, so this shows nothing", sub.Probes, answered)
	}
}
