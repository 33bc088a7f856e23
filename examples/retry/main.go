// Command retry calls a server through a pool with an interceptor and gRPC's own retry
// policy. Both are dial options, as on any gRPC channel:
//
//	go run ./retry -address api.example.com:443
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/shared"
)

// retries makes gRPC repeat a call, up to three times, when it ends with Unavailable
// (gRFC A6). List only services whose calls may run twice.
const retries = `{
  "methodConfig": [{
    "name": [{"service": "grpc.health.v1.Health"}],
    "retryPolicy": {
      "maxAttempts": 4,
      "initialBackoff": "0.1s",
      "maxBackoff": "1s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
}`

func main() {
	address := flag.String("address", "localhost:443", "the server, as host:port")
	flag.Parse()

	factory, err := grpcpool.NewFactory(*address, credentials.NewTLS(nil), grpcpool.WithDialOptions(
		grpc.WithDefaultServiceConfig(retries),
		grpc.WithChainUnaryInterceptor(logCall),
	))
	if err != nil {
		log.Fatal(err)
	}
	pool := shared.New(factory, 5*time.Minute)
	defer pool.Close()

	answer, err := healthpb.NewHealthClient(pool).Check(context.Background(), &healthpb.HealthCheckRequest{})
	fmt.Println(answer.GetStatus(), err)
}

// logCall runs once for each call, however often gRPC retries it. The pool's own tests
// of the channel are calls too.
func logCall(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	start := time.Now()
	err := invoke(ctx, method, request, reply, conn, opts...)
	log.Printf("%s: %s after %s", method, status.Code(err), time.Since(start).Round(time.Millisecond))
	return err
}
