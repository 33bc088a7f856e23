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
	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
)

// What is behind the first connection may be stuck while its HTTP/2 lives. The ping
// stays there, and another one goes to the connection's successor.
func TestTheFirstPingIsMadeAgainWhenItsConnectionIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := bufconn.Listen(256 << 10)
		s := h2test.Start(l, h2test.WithDelay(time.Hour))
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

// A server that is slow with its first answer, and with every other, is connected to in
// the time that the caller gives it.
func TestASlowFirstPingHasAllTheTimeThatThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slow = 9 * time.Second
		ping := func(ctx context.Context, _ *grpc.ClientConn) (time.Duration, error) {
			select {
			case <-time.After(slow):
				return slow, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		l := bufconn.Listen(256 << 10)
		s := h2test.Start(l)
		t.Cleanup(s.Close)
		f, err := grpcpool.NewFactory("passthrough:///memory", insecure.NewCredentials(), grpcpool.WithPing(ping),
			grpcpool.WithDialOptions(grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) })))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begun := time.Now()
		conn, err := f.NewConnection(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != slow {
			t.Errorf("connected after %v, want %v", took, slow)
		}
		_ = conn.Close()
	})
}

// The end of the caller's context ends the first ping, and NewConnection with it.
func TestTheFirstPingEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience = 200 * time.Millisecond
		silent := func(ctx context.Context, _ *grpc.ClientConn) (time.Duration, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}
		l := bufconn.Listen(256 << 10)
		s := h2test.Start(l)
		t.Cleanup(s.Close)
		f, err := grpcpool.NewFactory("passthrough:///memory", insecure.NewCredentials(), grpcpool.WithPing(silent),
			grpcpool.WithDialOptions(grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) })))
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			begun := time.Now()
			_, err := f.NewConnection(ctx)
			if took := time.Since(begun); err == nil || took != patience {
				t.Errorf("NewConnection returned %v after %v, want an error after %v", err, took, patience)
			}
			cancel()
		}
	})
}
