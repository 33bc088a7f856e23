package tap_test

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

func Example() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	srv := grpc.NewServer(grpc.MaxConcurrentStreams(100))
	healthpb.RegisterHealthServer(srv, health.NewServer())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	defer func() { srv.Stop(); <-done }()

	state := tap.New(tap.Events{
		Limit: func(limit uint32) { fmt.Println("streams allowed:", limit) },
	})
	cc, err := grpc.NewClient("passthrough:///"+l.Addr().String(),
		grpc.WithCredentialsBundle(tap.Bundle(insecure.NewCredentials(), nil, state)))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cc.Close()
	answer, err := healthpb.NewHealthClient(cc).Check(context.Background(), &healthpb.HealthCheckRequest{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("the server is", answer.GetStatus())
	fmt.Println("settled:", state.Settled())

	// Output:
	// streams allowed: 100
	// the server is SERVING
	// settled: true
}
