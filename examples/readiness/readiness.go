// Package readiness is code that calls a gRPC server, and an example of how such code
// is tested with grpcpooltest: see its tests.
package readiness

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// Wait asks the server for its health once a second until it is SERVING. The error
// says what the server answered last.
func Wait(ctx context.Context, conn grpc.ClientConnInterface) error {
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		if err == nil && answer.GetStatus() == healthpb.HealthCheckResponse_SERVING {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("the server is not ready (%w): status %s, error %v", ctx.Err(), answer.GetStatus(), err)
		}
	}
}
