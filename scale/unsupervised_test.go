package scale_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// dialTimes makes calls of all kinds on a channel for three minutes of an outage, and
// returns when it dialled.
func dialTimes(t *testing.T, open func(string, ...grpc.DialOption) (*grpc.ClientConn, error), outage func(t *testing.T, n *inMemory), opts ...grpc.DialOption) (times []string) {
	synctest.Test(t, func(t *testing.T) {
		network := newInMemory()
		startServer(t, serverConfig{listener: network})
		link := grpcpooltest.NewLink(network.dial)
		var mu sync.Mutex // guards times and current
		current := link.Dial
		begun := time.Now()
		dial := func(ctx context.Context, addr string) (net.Conn, error) {
			mu.Lock()
			times = append(times, time.Since(begun).String())
			dial := current
			mu.Unlock()
			return dial(ctx, addr)
		}
		unjittered := grpc.ConnectParams{MinConnectTimeout: 20 * time.Second, Backoff: backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, MaxDelay: 2 * time.Minute}}
		cc, err := open("passthrough:///memory", append(opts, grpc.WithContextDialer(dial), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(unjittered))...)
		if err != nil {
			t.Fatal(err)
		}
		stub := testpb.NewTestServiceClient(cc)
		if _, err := stub.EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
			t.Fatal(err)
		}
		away := newInMemory()
		outage(t, away)
		mu.Lock()
		current = away.dial
		mu.Unlock()
		link.Reset()
		stop := callers(t, stub, 2)
		waiting, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			for waiting.Err() == nil {
				_, _ = stub.EmptyCall(waiting, &testpb.Empty{}, grpc.WaitForReady(true))
			}
		})
		time.Sleep(3 * time.Minute)
		stop()
		cancel()
		wg.Wait()
		_ = cc.Close()
	})
	return times
}

func TestAnUnsupervisedChannelDialsAsAPlainOneDoes(t *testing.T) {
	for name, outage := range map[string]func(t *testing.T, n *inMemory){
		"dials are refused": func(_ *testing.T, n *inMemory) { n.refuse.Store(true) },
		"nobody begins HTTP/2": func(t *testing.T, n *inMemory) {
			t.Helper()
			t.Cleanup(h2test.Start(n, h2test.WithFault(h2test.Silent)).Close)
		},
	} {
		t.Run(name, func(t *testing.T) {
			plain := dialTimes(t, grpc.NewClient, outage)
			ours := dialTimes(t, scale.NewClient, outage, scale.WithUnsupervised())
			if diff := cmp.Diff(plain, ours); diff != "" {
				t.Errorf("dials of a plain channel (-) and of an unsupervised one (+):\n%s", diff)
			}
			if len(plain) < 4 {
				t.Errorf("%d dials", len(plain))
			}
		})
	}
}

// The GOAWAY may come before the channel's own report that it connects.
func TestAnUnsupervisedChannelGoesOnAfterGoAwaysAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, s := strictInMemory(t, h2test.WithFault(h2test.GoAwayAtOnce))
		c := network.channel(t, scale.WithUnsupervised(), grpc.WithIdleTimeout(0))
		stop := callers(t, c.stub, 2)
		elapse(2 * time.Minute)
		stop()
		s.SetFault(h2test.NoFault)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute) // gRPC's longest backoff, and a half
		defer cancel()
		if _, err := c.stub.EmptyCall(ctx, &testpb.Empty{}, grpc.WaitForReady(true)); err != nil {
			t.Errorf("when the server is well: %v", err)
		}
	})
}
