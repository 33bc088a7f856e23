package grpcpooltest_test

import (
	"context"
	"fmt"
	"log"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// A test of a program's client: does a call outlast a restart of the server? In the
// bubble of testing/synctest the minute passes at once. Register the program's service in
// place of TestService.
func ExampleNewServer() {
	_ = func(t *testing.T) { // func TestACallOutlastsARestart(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(),
				grpcpooltest.WithServices(func(r grpc.ServiceRegistrar) {
					testpb.RegisterTestServiceServer(r, greeter{})
				}))
			factory, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(),
				grpcpool.WithDialOptions(server.DialOptions()...))
			if err != nil {
				t.Fatal(err)
			}
			pool := shared.New(factory, time.Minute, shared.WithWaitForReady())
			defer pool.Close()

			server.Stop()
			time.AfterFunc(time.Minute, server.Start)
			if _, err := testpb.NewTestServiceClient(pool).EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// greeter is the program's service.
type greeter struct {
	testpb.UnimplementedTestServiceServer
}

func (greeter) EmptyCall(context.Context, *testpb.Empty) (*testpb.Empty, error) {
	return &testpb.Empty{}, nil
}

// A server for a program that is not a test: a demo, or a load generator.
func ExampleStandalone() {
	ctx := context.Background()
	server := grpcpooltest.NewStandalone(grpcpooltest.WithMutualTLS())
	if err := server.Start(ctx); err != nil {
		log.Panic(err)
	}
	cc, err := scale.NewClient(server.Target(), server.DialOptions()...)
	if err != nil {
		log.Panic(err)
	}
	for range 3 {
		if _, err := testpb.NewTestServiceClient(cc).EmptyCall(ctx, &testpb.Empty{}); err != nil {
			log.Panic(err)
		}
	}
	_ = cc.Close()
	if err := server.Stop(); err != nil {
		log.Panic(err)
	}
	seen := server.Counts()
	fmt.Println("connections:", seen.Opened, "calls:", seen.Calls >= 3)
	// Output: connections: 1 calls: true
}

// A server whose process hangs: connections stand, and nothing is answered.
func ExampleLink_Hang() {
	server := grpcpooltest.NewStandalone(grpcpooltest.WithInMemory())
	if err := server.Start(context.Background()); err != nil {
		log.Panic(err)
	}
	defer func() { _ = server.Stop() }()
	link := grpcpooltest.NewLink(server.Dial)
	cc, err := grpc.NewClient(server.Target(), server.DialOptions(link.DialOption())...)
	if err != nil {
		log.Panic(err)
	}
	defer func() { _ = cc.Close() }()
	client := testpb.NewTestServiceClient(cc)

	link.Hang()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err = client.EmptyCall(ctx, &testpb.Empty{})
	fmt.Println(status.Code(err))

	link.Heal()
	_, err = client.EmptyCall(context.Background(), &testpb.Empty{})
	fmt.Println(status.Code(err))
	// Output:
	// DeadlineExceeded
	// OK
}
