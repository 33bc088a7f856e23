package proxy

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func newHealth(service string) *health.Server {
	h := health.NewServer()
	h.SetServingStatus(service, healthpb.HealthCheckResponse_SERVING)
	return h
}

func isHealth(method string) bool {
	return method == healthpb.Health_Check_FullMethodName || method == healthpb.Health_Watch_FullMethodName
}

// handleHealth answers health checks for the proxy itself and forwards all others. The
// first message says which service is checked.
func (s *Server) handleHealth(client grpc.ServerStream, method string) error {
	first := new(message)
	if err := client.RecvMsg(first); errors.Is(err, io.EOF) {
		return status.Error(codes.Internal, "grpcpool proxy: the health check has no request")
	} else if err != nil {
		return err
	}
	request := new(healthpb.HealthCheckRequest)
	if first.decodeProto(request) != nil || request.GetService() != s.cfg.HealthService {
		return s.pass(client, method, first)
	}
	first.free()
	if method == healthpb.Health_Watch_FullMethodName {
		return s.watchHealth(client, request)
	}
	answer, err := s.health.Check(client.Context(), request)
	if err != nil {
		return err
	}
	return client.SendMsg(answer)
}

// watchHealth serves a watch. A shutdown ends the watch, and waits for it.
func (s *Server) watchHealth(client grpc.ServerStream, request *healthpb.HealthCheckRequest) error {
	ctx, cancel := context.WithCancel(client.Context())
	defer cancel()
	return s.health.Watch(request, &watch{client, ctx, cancel})
}

// watch is the stream of a health watch. It ends after NOT_SERVING.
type watch struct {
	grpc.ServerStream

	ctx    context.Context //nolint:containedctx // as in grpc.ServerStream
	cancel context.CancelFunc
}

func (w *watch) Context() context.Context { return w.ctx }

func (w *watch) Send(answer *healthpb.HealthCheckResponse) error {
	if answer.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		defer w.cancel()
	}
	return w.SendMsg(answer)
}
