package grpcpooltest

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// registerServices registers the program's services, and those of ours that it has not.
func (s *Standalone) registerServices(server *grpc.Server) {
	for _, register := range s.cfg.register {
		register(server)
	}
	has := server.GetServiceInfo()
	if _, ok := has[healthpb.Health_ServiceDesc.ServiceName]; !ok && !s.cfg.noHealth {
		healthpb.RegisterHealthServer(server, s.Health)
	}
	if _, ok := has[testpb.TestService_ServiceDesc.ServiceName]; !ok {
		testpb.RegisterTestServiceServer(server, &testService{emptyCall: s.cfg.emptyCall})
	}
	if _, ok := has[testpb.BenchmarkService_ServiceDesc.ServiceName]; !ok {
		testpb.RegisterBenchmarkServiceServer(server, benchmarkService{})
	}
}

// testService is grpc.testing.TestService, as far as tests need it.
type testService struct {
	testpb.UnimplementedTestServiceServer

	emptyCall func(context.Context) error // may be nil
}

func (s *testService) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	if s.emptyCall != nil {
		if err := s.emptyCall(ctx); err != nil {
			return nil, err
		}
	}
	return &testpb.Empty{}, nil
}

// UnaryCall answers with the payload that it got.
func (*testService) UnaryCall(_ context.Context, request *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Payload: request.GetPayload()}, nil
}

// FullDuplexCall answers each message with an empty one until the client is done.
func (*testService) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	for {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
}

// StreamingInputCall counts the bytes of the messages that the client sends.
func (*testService) StreamingInputCall(stream testpb.TestService_StreamingInputCallServer) error {
	var n int32
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: n})
		}
		if err != nil {
			return err
		}
		n += int32(len(in.GetPayload().GetBody())) //nolint:gosec // tests send little
	}
}

// benchmarkService is grpc.testing.BenchmarkService's unary call: an echo.
type benchmarkService struct {
	testpb.UnimplementedBenchmarkServiceServer
}

func (benchmarkService) UnaryCall(_ context.Context, request *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Payload: request.GetPayload()}, nil
}
