// Command tls asks a gRPC server for its health on a channel that opens as many
// connections as the server's stream limit makes necessary:
//
//	go run ./tls -address api.example.com:443
package main

import (
	"context"
	"flag"
	"fmt"
	"log"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/davidwartell/go-grpcpool/scale"
)

func main() {
	address := flag.String("address", "localhost:443", "the server, as host:port")
	flag.Parse()

	conn, err := scale.NewClient(*address, grpc.WithTransportCredentials(credentials.NewTLS(nil)))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	answer, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
	fmt.Println(answer.GetStatus(), err)
}
