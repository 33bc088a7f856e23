package h2test_test

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
)

func Example() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	srv := h2test.Start(l, h2test.WithLimit(8))
	defer srv.Close()

	cc, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cc.Close()
	for range 3 {
		if _, err := healthpb.NewHealthClient(cc).Check(context.Background(), &healthpb.HealthCheckRequest{}); err != nil {
			fmt.Println(err)
			return
		}
		srv.SetLimit(1)
	}
	seen := srv.Counts()
	fmt.Println("calls:", seen.Calls, "connections:", seen.Connections, "violations:", seen.Violations)

	// Output:
	// calls: 3 connections: 1 violations: 0
}

// A server that answers each call by resetting its stream.
func ExampleWithFault() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	srv := h2test.Start(l, h2test.WithFault(h2test.ResetsCalls))
	defer srv.Close()

	cc, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cc.Close()
	_, err = healthpb.NewHealthClient(cc).Check(context.Background(), &healthpb.HealthCheckRequest{})
	fmt.Println(h2test.ResetsCalls, "ends in", status.Code(err))

	// Output:
	// resets calls ends in Internal
}
