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

// Wait asks the server for its health once a second until it is SERVING. When ctx
// ends first, the error says what the server answered last.
func Wait(ctx context.Context, conn grpc.ClientConnInterface) error {
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		err := check(ctx, conn)
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the server: %w: %w", ctx.Err(), err)
		}
	}
}

func check(ctx context.Context, conn grpc.ClientConnInterface) error {
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return err
	}
	if status := answer.GetStatus(); status != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("it says that it is %s", status)
	}
	return nil
}
