package load_test

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/load"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

func Example() {
	server := grpcpooltest.NewStandalone()
	if err := server.Start(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	defer server.Stop()
	ways := []load.Way{{Name: "plain", Conn: func(context.Context) (grpc.ClientConnInterface, func(), error) {
		cc, err := grpc.NewClient(server.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, nil, err
		}
		return cc, func() { cc.Close() }, nil
	}}}
	cfg := load.Config{Callers: 2, Duration: 100 * time.Millisecond, Timeout: 10 * time.Second, Turns: 1}
	results, err := load.Run(context.Background(), load.HealthCheck(), ways, cfg, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(results[0].Way, results[0].Calls > 0, results[0].Failed)
	// Output: plain true 0
}
