package readiness_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/examples/readiness"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A real server on loopback, over mutual TLS.
func TestItReturnsWhenTheServerServes(t *testing.T) {
	server := grpcpooltest.NewServer(t, grpcpooltest.WithMutualTLS())
	conn, err := scale.NewClient(server.Target(), server.DialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := readiness.Wait(t.Context(), conn); err != nil {
		t.Error(err)
	}
}

// A server in memory, in a bubble of testing/synctest: a minute passes at once.
func TestItWaitsForAServerThatIsStillStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		conn, err := scale.NewClient(server.Target(), server.DialOptions()...)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		server.Health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
		time.AfterFunc(time.Minute, func() {
			server.Health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
		})
		wantAfter(t, time.Minute, func() error { return readiness.Wait(t.Context(), conn) })
	})
}

// A pool over a network that loses everything for a minute.
func TestItSurvivesANetworkThatIsGoneForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		link := grpcpooltest.NewLink(server.Dial)
		pool := newPool(t, server, link)
		if err := readiness.Wait(t.Context(), pool); err != nil {
			t.Fatal(err)
		}
		link.Blackhole()
		time.AfterFunc(time.Minute, link.Heal)
		wantAfter(t, time.Minute, func() error { return readiness.Wait(t.Context(), pool) })
	})
}

func TestItSaysWhyTheServerIsNotReadyWhenItsTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		pool := newPool(t, server, grpcpooltest.NewLink(server.Dial))
		server.Stop()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := readiness.Wait(ctx, pool); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want that the time is up", err)
		}
	})
}

func newPool(t *testing.T, server *grpcpooltest.Server, link *grpcpooltest.Link) *shared.Pool {
	t.Helper()
	factory, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(),
		grpcpool.WithDialOptions(server.DialOptions(link.DialOption())...))
	if err != nil {
		t.Fatal(err)
	}
	pool := shared.New(factory, time.Hour)
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	return pool
}

// wantAfter fails the test unless wait returns nil within some seconds after d.
func wantAfter(t *testing.T, d time.Duration, wait func() error) {
	t.Helper()
	start := time.Now()
	if err := wait(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took < d || took > d+5*time.Second {
		t.Errorf("it took %s, want %s or little more", took, d)
	}
}
