package grpcpool

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// PingFunc asks the server behind conn for a sign of life and returns how long
// the answer took. It must return when ctx ends, must not close conn, and may be
// called concurrently. HTTP/2 PING frames are not a job for it: grpc-go's
// keepalive sends those, within what servers allow (gRFC A8); a PingFunc makes
// an RPC.
type PingFunc func(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error)

// HealthPing is a PingFunc that calls Check of grpc.health.v1.Health for the
// empty service, which stands for the whole server. SERVING is a good answer. A
// server that does not implement the service, or does not know the empty name,
// has answered all the same and is alive (UNIMPLEMENTED, NOT_FOUND). Any other
// status of health is an error with the code Unavailable; any other error of the
// call is returned as it came.
func HealthPing(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
	start := time.Now()
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	took := time.Since(start)
	switch status.Code(err) {
	case codes.OK:
	case codes.Unimplemented, codes.NotFound:
		return took, nil
	default:
		return took, fmt.Errorf("grpcpool: health check: %w", err)
	}
	if s := answer.GetStatus(); s != healthpb.HealthCheckResponse_SERVING {
		return took, status.Errorf(codes.Unavailable, "grpcpool: health check: the server reports %v", s)
	}
	return took, nil
}
