package scale_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// A server that allows 10 streams per connection, and 35 calls at once: grpc.NewClient
// would run them 10 at a time.
func Example() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := h2test.Start(l, h2test.WithLimit(10), h2test.WithDelay(500*time.Millisecond))
	defer server.Close()

	observer := new(scale.Observer) // only to look inside
	cc, err := scale.NewClient(l.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		scale.WithObserver(observer))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cc.Close()

	stub := testpb.NewTestServiceClient(cc)
	var wg sync.WaitGroup
	for range 35 {
		wg.Go(func() {
			if _, err := stub.EmptyCall(context.Background(), &testpb.Empty{}); err != nil {
				fmt.Println(err)
			}
		})
	}
	wg.Wait()
	subchannel := observer.Snapshot().Subchannels[0]
	fmt.Println(subchannel.State, "with", len(subchannel.Connections), "connections")

	// Output: READY with 4 connections
}
