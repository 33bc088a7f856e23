package shim_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/conformance/shim"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

func TestAChannelIsMadeOnlyWithAKnownSetting(t *testing.T) {
	for _, setting := range []string{"", "plain"} {
		t.Setenv(shim.Variable, setting)
		if _, err := shim.NewClient("passthrough:///nowhere", grpc.WithTransportCredentials(insecure.NewCredentials())); err == nil {
			t.Errorf("%q: a channel was made, and nobody knows which", setting)
		}
	}
}

// The server allows one call a connection, and one is under way.
func TestOnlyTheDefaultOpensASecondConnection(t *testing.T) {
	for setting, want := range map[string]struct {
		connections int
		code        codes.Code
	}{
		shim.Default: {connections: 2, code: codes.OK},
		shim.One:     {connections: 1, code: codes.DeadlineExceeded},
	} {
		t.Setenv(shim.Variable, setting)
		synctest.Test(t, func(t *testing.T) {
			server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(), grpcpooltest.WithServerOptions(grpc.MaxConcurrentStreams(1)))
			cc, err := shim.NewClient(server.Target(), grpc.WithContextDialer(server.Dial),
				grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatalf("%s: %v", setting, err)
			}
			defer cc.Close()
			client := testpb.NewTestServiceClient(cc)
			held, cancelHeld := context.WithCancel(t.Context())
			defer cancelHeld()
			if _, err := client.FullDuplexCall(held, grpc.WaitForReady(true)); err != nil {
				t.Fatalf("%s: the first call: %v", setting, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err = client.EmptyCall(ctx, &testpb.Empty{}, grpc.WaitForReady(true))
			if status.Code(err) != want.code || server.Accepted() != want.connections {
				t.Errorf("%s: the second call ended with %v, over %d connections; want %v and %d",
					setting, err, server.Accepted(), want.code, want.connections)
			}
		})
	}
}
