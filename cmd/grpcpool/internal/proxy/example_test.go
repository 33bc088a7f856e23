package proxy_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/proxy"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/shared"
)

func Example() {
	ctx := context.Background()
	server := grpcpooltest.NewStandalone()
	must(server.Start(ctx))
	defer server.Stop()

	p, err := proxy.New(proxy.Config{Upstream: func() (*shared.Pool, error) {
		factory, err := grpcpool.NewFactory(server.Addr(), insecure.NewCredentials(), grpcpool.WithDialOptions(proxy.DialOptions()...))
		if err != nil {
			return nil, err
		}
		return shared.New(factory, time.Minute), nil
	}})
	must(err)
	dir, err := os.MkdirTemp("", "proxy")
	must(err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "p.sock")
	l, err := proxy.Listen(ctx, "unix", path, proxy.Access{})
	must(err)
	served := make(chan error)
	go func() { served <- p.Serve(l) }()

	for range 3 { // three programs, each with a connection of its own to the proxy
		cc, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
		must(err)
		answer, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{})
		must(err)
		fmt.Println(answer.GetStatus())
		must(cc.Close())
	}
	fmt.Println("connections to the server:", server.Counts().Opened)
	must(p.Shutdown(ctx))
	must(<-served)
	// Output:
	// SERVING
	// SERVING
	// SERVING
	// connections to the server: 1
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
