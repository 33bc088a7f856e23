package ping_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/ping"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/shared"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func startServer(t testing.TB, opts ...grpc.ServerOption) *grpcpooltest.Standalone {
	t.Helper()
	server := grpcpooltest.NewStandalone(grpcpooltest.WithServerOptions(opts...))
	if err := server.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Stop() })
	return server
}

func Example() {
	server := grpcpooltest.NewStandalone(grpcpooltest.WithServerOptions(grpc.MaxConcurrentStreams(250)))
	if err := server.Start(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	defer server.Stop()
	findings, err := ping.Probe(context.Background(), ping.Target{Address: server.Addr()})
	fmt.Println(err, findings.HTTP2.Limited, findings.HTTP2.MaxStreams)
	// Output: <nil> true 250
}

func TestTargetsAreReadAsGRPCReadsThem(t *testing.T) {
	server := startServer(t)
	_, port, err := net.SplitHostPort(server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{
		server.Addr(), "dns:///" + server.Addr(), "dns:" + server.Addr(), "passthrough:///" + server.Addr(),
		"dns://8.8.8.8/" + server.Addr(), "localhost:" + port, ":" + port,
	} {
		if _, err := ping.Probe(t.Context(), ping.Target{Address: target}); err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
	for _, target := range []string{"", "a:b:c", "xds:///a:1/b", "https://example.com"} {
		if _, err := ping.Probe(t.Context(), ping.Target{Address: target}); err == nil || !strings.Contains(err.Error(), "must be host:port") {
			t.Errorf("%q: %v", target, err)
		}
	}
}

func FuzzTarget(f *testing.F) {
	for _, seed := range []string{"a:1", "dns:///a:1", "unix:/x", "dns://1.1.1.1/a:1", "[::1]:1", "passthrough:x:1"} {
		f.Add(seed)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel() // nothing is to be resolved or dialled
	f.Fuzz(func(t *testing.T, target string) {
		if _, err := ping.Probe(ended, ping.Target{Address: target}); err == nil {
			t.Errorf("%q: no error on a context that has ended", target)
		}
	})
}

func TestAProbeEndsWithItsContext(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	findings, err := ping.Probe(ctx, ping.Target{Address: silent.Addr().String()})
	if err == nil || findings.Connected == "" || findings.HTTP2 != nil {
		t.Errorf("%+v, %v", findings, err)
	}
}

func TestLossIsCounted(t *testing.T) {
	server := startServer(t)
	factory, err := grpcpool.NewFactory(server.Addr(), insecure.NewCredentials())
	if err != nil {
		t.Fatal(err)
	}
	pool := shared.New(factory, 0)
	defer pool.Close()
	stopped := errors.New("not yet")
	summary := ping.Run(t.Context(), pool, ping.Config{Count: 6, Interval: time.Millisecond, Timeout: 10 * time.Second}, func(p ping.Ping) {
		if p.Seq == 3 {
			stopped = server.Stop()
		}
		if (p.Error == "") != (p.Seq <= 3) {
			t.Errorf("%+v", p)
		}
	})
	if stopped != nil || summary.Sent != 6 || summary.Answered != 3 || summary.Loss != 0.5 || summary.P50 <= 0 || summary.P50 > summary.P99 {
		t.Errorf("%+v, %v", summary, stopped)
	}
}
