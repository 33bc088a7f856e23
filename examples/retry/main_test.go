package main

import (
	"context"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/examples/internal/trial"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The server refuses every call that is made for the first time.
func TestACallThatFailsOnceIsMadeAgain(t *testing.T) {
	var refused atomic.Int64
	refuseFirst := func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		if md, _ := metadata.FromIncomingContext(ctx); len(md.Get("grpc-previous-rpc-attempts")) == 0 {
			refused.Add(1)
			return nil, status.Error(codes.Unavailable, "try again")
		}
		return handle(ctx, request)
	}
	server := trial.Server(t, grpcpooltest.WithServerOptions(grpc.UnaryInterceptor(refuseFirst)))
	if got, want := trial.Main(t, main, "-address", server.Addr()), "SERVING <nil>\n"; got != want {
		t.Errorf("it printed %q, want %q", got, want)
	}
	if refused.Load() == 0 {
		t.Error("the server refused no call")
	}
}
