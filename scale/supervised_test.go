package scale_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
)

func TestAnObserverSaysWhetherTheChannelWatchesItsConnections(t *testing.T) {
	for name, test := range map[string]struct {
		opts []grpc.DialOption
		want bool
	}{
		"as it comes":    {nil, true},
		"without probes": {[]grpc.DialOption{scale.WithProbeInterval(0)}, false},
		"unsupervised":   {[]grpc.DialOption{scale.WithUnsupervised()}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
				var o scale.Observer
				conn, err := scale.NewClient(server.Target(), server.DialOptions(append(test.opts, scale.WithObserver(&o))...)...)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if o.Supervised() {
					t.Error("an idle channel watches no connection")
				}
				if _, err := testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
					t.Fatal(err)
				}
				if got := o.Supervised(); got != test.want {
					t.Errorf("it watches its connections: %v, want %v", got, test.want)
				}
				server.Stop()
				time.Sleep(time.Second) // virtual
				if got := o.Supervised(); got != test.want || !o.LastProof().IsZero() {
					t.Errorf("without a connection: %v, proof of %v; want %v and none", got, o.LastProof(), test.want)
				}
			})
		})
	}
}
