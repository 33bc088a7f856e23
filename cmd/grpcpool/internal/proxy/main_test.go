package proxy_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/proxy"
	"github.com/davidwartell/go-grpcpool/shared"
)

func TestMain(m *testing.M) {
	if target := os.Getenv(childTarget); target != "" {
		os.Exit(runChild(target))
	}
	goleak.VerifyTestMain(m)
}

// upstreamTo returns an Upstream to a server without TLS.
func upstreamTo(target string) func() (*shared.Pool, error) {
	return func() (*shared.Pool, error) {
		factory, err := grpcpool.NewFactory(target, insecure.NewCredentials(), grpcpool.WithDialOptions(proxy.DialOptions()...))
		if err != nil {
			return nil, err
		}
		return shared.New(factory, time.Minute), nil
	}
}

// through starts a proxy to a server, on a Unix socket of this user.
type through struct {
	*proxy.Server

	path string
}

func newProxy(t testing.TB, target string, change ...func(*proxy.Config)) *through {
	t.Helper()
	cfg := proxy.Config{Upstream: upstreamTo(target)}
	for _, c := range change {
		c(&cfg)
	}
	p, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "p.sock")
	serve(t, p, "unix", path, proxy.Access{})
	return &through{p, path}
}

// serve makes p listen until the test ends, and then shuts it down.
func serve(t testing.TB, p *proxy.Server, network, address string, access proxy.Access) net.Addr {
	t.Helper()
	l, err := proxy.Listen(t.Context(), network, address, access)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- p.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr()
}

func dial(t testing.TB, target string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(target, append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

// client returns a channel to the proxy.
func (p *through) client(t testing.TB, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	return dial(t, "unix:"+p.path, opts...)
}

// backend serves a gRPC server on loopback.
func backend(t testing.TB, register func(*grpc.Server), opts ...grpc.ServerOption) (target string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(append([]grpc.ServerOption{grpc.WaitForHandlers(true)}, opts...)...)
	register(s)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-served
	})
	return l.Addr().String()
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}
