package scenario

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/bench/peers"
)

func stream() *Scenario {
	return &Scenario{
		Name: "stream", Title: "Messages of 1 MiB",
		Text:  "One stream from the server over TCP on loopback, in plaintext.",
		Peers: []string{peers.Pool, peers.Plain, peers.RoundRobin, peers.Least, peers.GCP, peers.API, peers.Exclusive},
		Units: []string{"MB/s"},
		run:   runStream,
	}
}

func runStream(ctx context.Context, e *Env) error {
	const size = 1 << 20
	s, err := start(ctx, nil)
	if err != nil {
		return err
	}
	defer s.stop()
	return e.eachPeer(s, 10, func(p peers.Peer, c peers.Client) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		messages, err := testpb.NewTestServiceClient(c).StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{
			ResponseParameters: []*testpb.ResponseParameters{{Size: size}},
		})
		if err != nil {
			return err //nolint:wrapcheck // eachPeer does
		}
		receive := func() error {
			_, err := messages.Recv()
			return err //nolint:wrapcheck // eachPeer does
		}
		for range either(e, 50, 1) { // flow control learns the bandwidth
			if err := receive(); err != nil {
				return err
			}
		}
		n := 0
		begin := time.Now()
		for time.Since(begin) < either(e, 300*time.Millisecond, time.Millisecond) {
			if err := receive(); err != nil {
				return err
			}
			n++
		}
		e.record("size=1MiB", p.Name, Metric{float64(n) * size / 1e6 / time.Since(begin).Seconds(), "MB/s"})
		return nil
	})
}

// slowDial takes 50 ms for a connection.
func slowDial() grpc.DialOption { return grpc.WithContextDialer(dialSlowly) }

func dialSlowly(ctx context.Context, address string) (net.Conn, error) {
	if !sleepUntil(ctx, time.Now().Add(50*time.Millisecond)) {
		return nil, ctx.Err() //nolint:wrapcheck // what a dialer returns
	}
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}
