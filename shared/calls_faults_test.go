package shared_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// Faults under RPCs made on the pool, and nothing else: no Get finds out anything for them.

// overLink makes a pool over a link to a server in memory.
func overLink(t *testing.T, dial []grpc.DialOption, idle time.Duration, opts ...shared.Option) (*shared.Pool, *grpcpooltest.Link, *grpcpooltest.Server) {
	t.Helper()
	server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
	link := grpcpooltest.NewLink(server.Dial)
	f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), grpcpool.WithDialOptions(dial...), grpcpool.WithDialOptions(link.DialOption()))
	if err != nil {
		t.Fatal(err)
	}
	return newPool(t, f, idle, opts...), link, server
}

// watching is each way in which a channel may be watched.
var watching = map[string][]grpc.DialOption{
	"by itself":  nil,
	"by nobody":  unwatched(),
	"by grpc-go": {scale.WithUnsupervised()},
}

func TestTheIdleTimeoutBeginsWithTheEndOfTheLastCall(t *testing.T) {
	for name, dial := range watching {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, _, _ := overLink(t, dial, time.Minute)
				for range 20 {
					time.Sleep(3 * time.Second) // virtual, as what follows
					if err := emptyCall(p)(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Minute - time.Second)
				if n := p.Stats().IdleClosed; n != 0 {
					t.Error("the channel was closed before its time")
				}
				time.Sleep(time.Second + 300*time.Millisecond)
				if n := p.Stats().IdleClosed; n != 1 {
					t.Error("the channel is open after the idle timeout")
				}
			})
		})
	}
}

// A stream tells nothing by itself when its network has died.
func TestADeadConnectionUnderAStreamIsFoundWithoutAGet(t *testing.T) {
	for name, dial := range watching {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, link, _ := overLink(t, dial, 0)
				if err := emptyCall(p)(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(30 * time.Second) // virtual, as what follows
				if _, err := testpb.NewTestServiceClient(p).FullDuplexCall(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				link.Blackhole()
				time.Sleep(5 * time.Second)
				if s := p.Stats(); s.TestsFailed == 0 {
					t.Errorf("%s after five seconds, and %d tests", s.State, s.Tests)
				}
			})
		})
	}
}
