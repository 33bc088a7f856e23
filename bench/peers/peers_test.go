package peers_test

import (
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/bench/peers"
)

func TestMain(m *testing.M) {
	// What google.golang.org/api starts when it is loaded.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

type server struct {
	testpb.UnimplementedTestServiceServer
}

func (server) EmptyCall(context.Context, *testpb.Empty) (*testpb.Empty, error) {
	return &testpb.Empty{}, nil
}

func (server) StreamingOutputCall(_ *testpb.StreamingOutputCallRequest, s grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	return s.Send(&testpb.StreamingOutputCallResponse{})
}

func TestEveryPeerMakesCallsAndStreams(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	testpb.RegisterTestServiceServer(s, server{})
	go s.Serve(lis)
	defer s.Stop()
	for _, p := range peers.All() {
		t.Run(p.Name, func(t *testing.T) {
			c, err := p.New(peers.Config{Target: "passthrough:///" + lis.Addr().String(), Size: 2})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			client := testpb.NewTestServiceClient(c)
			for range 3 { // more than connections
				if _, err := client.EmptyCall(ctx, &testpb.Empty{}); err != nil {
					t.Fatal(err)
				}
			}
			stream, err := client.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestPeersAreFoundByName(t *testing.T) {
	found := peers.Named(peers.Exclusive, "nobody", peers.Pool)
	if len(found) != 2 || found[0].Name != peers.Pool || found[1].Name != peers.Exclusive {
		t.Errorf("found %v", found)
	}
}
