// Command pool asks a gRPC server for its health through a pool:
//
//	go run ./pool -address api.example.com:443
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"time"

	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/shared"
)

func main() {
	address := flag.String("address", "localhost:443", "the server, as host:port")
	flag.Parse()

	factory, err := grpcpool.NewFactory(*address, credentials.NewTLS(nil))
	if err != nil {
		log.Fatal(err)
	}
	pool := shared.New(factory, 5*time.Minute) // closes its connections after five idle minutes
	defer pool.Close()

	answer, err := healthpb.NewHealthClient(pool).Check(context.Background(), &healthpb.HealthCheckRequest{})
	fmt.Println(answer.GetStatus(), err)
}
