package grpcpool_test

import (
	"context"
	"sync"
	"testing"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
)

// Twelve calls at once on a server that allows five streams a connection need
// three connections, and with at most two the last two wait their turn.
func TestAChannelHasTheConnectionsThatTheStreamLimitMakesNecessary(t *testing.T) {
	for name, test := range map[string]struct {
		opts    []grpc.DialOption
		at      int // calls that run at the same time
		accepts int
	}{
		"by default":               {nil, 12, 3},
		"with at most two":         {[]grpc.DialOption{scale.WithMaxConnections(2)}, 10, 2},
		"without scaling":          {[]grpc.DialOption{scale.WithMaxConnections(1)}, 5, 1},
		"with two streams on each": {[]grpc.DialOption{scale.WithMaxStreams(2)}, 12, 6},
	} {
		t.Run(name, func(t *testing.T) {
			begun, finish := make(chan struct{}, 12), make(chan struct{})
			server := grpcpooltest.NewServer(t,
				grpcpooltest.WithServerOptions(grpc.MaxConcurrentStreams(5)),
				grpcpooltest.WithEmptyCall(func(context.Context) error {
					begun <- struct{}{}
					<-finish
					return nil
				}))
			f := plainFactory(t, server.Addr(), grpcpool.WithDialOptions(test.opts...))
			conn, inside, err := f.NewInspectedConnection(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			var calls sync.WaitGroup
			for range 12 {
				calls.Go(func() {
					if _, err := testpb.NewTestServiceClient(conn).EmptyCall(testContext(t), &testpb.Empty{}); err != nil {
						t.Error(err)
					}
				})
			}
			for range test.at {
				<-begun
			}
			shown := inside.Snapshot()
			close(finish)
			calls.Wait()
			if n := server.Accepted(); n != test.accepts {
				t.Errorf("%d connections, want %d", n, test.accepts)
			}
			streams := 0
			for _, s := range shown.Subchannels {
				for _, c := range s.Connections {
					streams += c.InFlight
					if c.Limit != 5 {
						t.Errorf("the limit of a connection is shown as %d, want 5", c.Limit)
					}
				}
			}
			if streams != test.at {
				t.Errorf("%d streams in flight are shown, want %d", streams, test.at)
			}
		})
	}
}
