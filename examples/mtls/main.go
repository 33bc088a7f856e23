// Command mtls calls a server over mutual TLS, on a channel and through a pool, with
// certificates that are read again when their files change. It reads ca.pem,
// client.pem and client-key.pem in the current directory:
//
//	go run ./mtls -address api.example.com:443
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

func main() {
	address := flag.String("address", "localhost:443", "the server, as host:port")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *address)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, address string) error {
	provider, err := identity.FromFiles("ca.pem", "client.pem", "client-key.pem")
	if err != nil {
		return err
	}
	defer provider.Close()

	return callEvery(ctx, time.Second, address, provider)
}

// callEvery calls the server on a channel and through a pool until ctx ends.
func callEvery(ctx context.Context, pause time.Duration, address string, provider *identity.Provider) error {
	conn, err := scale.NewClient(address, provider.DialOption())
	if err != nil {
		return err
	}
	defer conn.Close()

	factory, err := grpcpool.NewIdentityFactory(address, provider)
	if err != nil {
		return err
	}
	pool := shared.New(factory, 5*time.Minute)
	defer pool.Close()

	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		fmt.Printf("%s: %s on the channel, %s through the pool\n",
			provider.Info().Subject, health(ctx, conn), health(ctx, pool))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// health returns the server's status, or why the call failed.
func health(ctx context.Context, conn grpc.ClientConnInterface) string {
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return err.Error()
	}
	return answer.GetStatus().String()
}
