package grpcpool_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/test/bufconn"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/internal/h2server"
)

// What is behind the first connection may be stuck while its HTTP/2 lives. The ping
// stays there, and another one goes to the connection's successor.
func TestTheFirstPingIsMadeAgainWhenItsConnectionIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := bufconn.Listen(256 << 10)
		s := h2server.Start(l, h2server.WithDelay(time.Hour))
		t.Cleanup(s.Close)
		ping := func(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
			begun := time.Now()
			_, err := testpb.NewTestServiceClient(conn).EmptyCall(ctx, &testpb.Empty{})
			return time.Since(begun), err
		}
		f, err := grpcpool.NewFactory("passthrough:///memory", insecure.NewCredentials(), grpcpool.WithPing(ping),
			grpcpool.WithDialOptions(grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) })))
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(1200*time.Millisecond, func() { s.SetDelay(0) })
		begun := time.Now()
		conn, err := f.NewConnection(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("connected after %v", took)
		}
		_ = conn.Close()
	})
}
