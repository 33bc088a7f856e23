package shared_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/shared"
)

// One lease serves as many RPCs as the caller likes.
func ExamplePool_Get() {
	address, stop := startHealthServer()
	defer stop()
	factory, err := grpcpool.NewFactory(address, insecure.NewCredentials())
	if err != nil {
		log.Panic(err)
	}
	pool := shared.New(factory, 5*time.Minute, shared.WithLeakDetection(time.Minute))
	defer pool.Close()

	conn, err := pool.Get(context.Background())
	if err != nil {
		log.Panic(err)
	}
	defer conn.Return()
	client := healthpb.NewHealthClient(conn.Connection())
	for range 3 {
		answer, err := client.Check(context.Background(), &healthpb.HealthCheckRequest{})
		fmt.Println(answer.GetStatus(), err)
	}
	fmt.Println("leases out:", pool.Stats().Leases)
	// Output:
	// SERVING <nil>
	// SERVING <nil>
	// SERVING <nil>
	// leases out: 1
}

// A pool is a grpc.ClientConnInterface: a generated client works on it, and takes
// and returns a lease around each call.
func ExamplePool_Invoke() {
	address, stop := startHealthServer()
	defer stop()
	factory, err := grpcpool.NewFactory(address, insecure.NewCredentials())
	if err != nil {
		log.Panic(err)
	}
	pool := shared.New(factory, 5*time.Minute)
	defer pool.Close()

	answer, err := healthpb.NewHealthClient(pool).Check(context.Background(), &healthpb.HealthCheckRequest{})
	fmt.Println(answer.GetStatus(), err)
	fmt.Println("leases out:", pool.Stats().Leases)
	// Output:
	// SERVING <nil>
	// leases out: 0
}

// Events say what happens in the pool. The kinds are constants of this package.
func ExampleWithEvents() {
	address, stop := startHealthServer()
	defer stop()
	factory, err := grpcpool.NewFactory(address, insecure.NewCredentials())
	if err != nil {
		log.Panic(err)
	}
	pool := shared.New(factory, 5*time.Minute, shared.WithEvents(func(e shared.Event) {
		switch e.Kind {
		case shared.EventFailing, shared.EventRecovered:
			log.Print(e.Kind, ": ", e.Text)
		case shared.EventOpened, shared.EventShutdown:
			fmt.Println(e.Kind)
		default: // see the constants
		}
	}))
	conn, err := pool.Get(context.Background())
	if err != nil {
		log.Panic(err)
	}
	conn.Return()
	fmt.Println(pool.Close()) // by then all events have been delivered
	// Output:
	// opened
	// shut_down
	// <nil>
}

func startHealthServer() (address string, stop func()) {
	lis, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		log.Panic(err)
	}
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer())
	go func() {
		if err := server.Serve(lis); err != nil {
			log.Print(err)
		}
	}()
	return lis.Addr().String(), server.Stop
}
