package snappy_test

import (
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool/snappy"
)

// Every call of this channel is compressed, unless it names another compressor.
func Example() {
	cc, err := grpc.NewClient("dns:///server.example:443",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.UseCompressor(snappy.Name)),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cc.Close()

	fmt.Println(snappy.Registered())
	// Output: true
}

// Requests of 1 KiB or more are compressed, shorter ones are not.
func ExampleUnaryClientInterceptor() {
	cc, err := grpc.NewClient("dns:///server.example:443",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithChainUnaryInterceptor(snappy.UnaryClientInterceptor(1<<10)),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cc.Close()

	fmt.Println(cc.Target())
	// Output: dns:///server.example:443
}
