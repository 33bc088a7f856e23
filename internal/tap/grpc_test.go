package tap_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// serve runs a gRPC server with a health service on network "tcp" or "unix"
// until the test ends.
func serve(t testing.TB, network string, opts ...grpc.ServerOption) (*grpc.Server, net.Addr) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = t.TempDir() + "/s"
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(opts...)
	healthpb.RegisterHealthServer(srv, health.NewServer())
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Stop(); <-done })
	return srv, l.Addr()
}

func target(addr net.Addr) string {
	if addr.Network() == "unix" {
		return "unix:" + addr.String()
	}
	return "passthrough:///" + addr.String()
}

func dial(t testing.TB, addr net.Addr, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(target(addr), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

// serverTLS and clientTLS are the two sides of mutual TLS.
func serverTLS(t testing.TB, local *grpcpooltest.Certs) credentials.TransportCredentials {
	t.Helper()
	cfg, err := local.CA.ServerConfig(local.Server)
	if err != nil {
		t.Fatal(err)
	}
	return credentials.NewTLS(cfg)
}

func clientTLS(t testing.TB, local *grpcpooltest.Certs, client ...grpcpooltest.KeyPair) *tls.Config {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(local.CA.PEM) {
		t.Fatal("the authority's certificate cannot be read")
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: "localhost"}
	for _, pair := range client {
		cert, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = append(cfg.Certificates, cert)
	}
	return cfg
}

func localhost(t testing.TB) *grpcpooltest.Certs {
	t.Helper()
	local, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	return local
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// await returns when the channel is in the wanted state.
func await(t *testing.T, cc *grpc.ClientConn, wanted connectivity.State) {
	t.Helper()
	ctx := testContext(t)
	for state := cc.GetState(); state != wanted; state = cc.GetState() {
		if !cc.WaitForStateChange(ctx, state) {
			t.Fatalf("the channel stays %v", state)
		}
	}
}

func TestARealServerIsUnderstood(t *testing.T) {
	local := localhost(t)
	for _, tc := range []struct {
		name, network string
		server        credentials.TransportCredentials
		client        credentials.TransportCredentials
	}{
		{"plain TCP", "tcp", insecure.NewCredentials(), insecure.NewCredentials()},
		{"a Unix socket", "unix", insecure.NewCredentials(), insecure.NewCredentials()},
		{"mutual TLS", "tcp", serverTLS(t, local), credentials.NewTLS(clientTLS(t, local, local.Client))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv, addr := serve(t, tc.network, grpc.Creds(tc.server), grpc.MaxConcurrentStreams(7))
			limits, aways := make(chan uint32, 10), make(chan tap.GoAway, 10)
			s := tap.New(tap.Events{
				Limit:  func(n uint32) { limits <- n },
				GoAway: func(g tap.GoAway) { aways <- g },
			})
			cc := dial(t, addr, grpc.WithCredentialsBundle(tap.Bundle(tc.client, nil, s)))
			ctx := testContext(t)
			watch, err := healthpb.NewHealthClient(cc).Watch(ctx, &healthpb.HealthCheckRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := watch.Recv(); err != nil {
				t.Fatal(err)
			}
			if got := <-limits; got != 7 || s.Limit() != 7 || !s.Settled() {
				t.Errorf("told of limit %d; limit %d, settled %v", got, s.Limit(), s.Settled())
			}
			if _, isTLS := s.TLS(); isTLS != (tc.name == "mutual TLS") {
				t.Errorf("TLS: %v", isTLS)
			}
			if got := s.RemoteAddr().String(); got != addr.String() {
				t.Errorf("RemoteAddr() = %s, want %s", got, addr)
			}
			if d := time.Since(s.LastHeard()); d < 0 || d > time.Minute {
				t.Errorf("last heard %v ago", d)
			}
			if err := s.Cause(); err != nil {
				t.Errorf("Cause() = %v of a living connection", err)
			}
			stopped := make(chan struct{})
			go func() { defer close(stopped); srv.GracefulStop() }()
			if g := <-aways; !g.Graceful() {
				t.Errorf("first GOAWAY %+v, want a graceful one", g)
			}
			if g := <-aways; g.Graceful() || g.LastStreamID != 1 {
				t.Errorf("second GOAWAY %+v, want one that names stream 1", g)
			}
			cc.Close()
			<-stopped
			if err := s.Cause(); err != nil {
				t.Errorf("Cause() = %v of a connection that this side closed", err)
			}
		})
	}
}

func TestAServerThatNamesNoLimitIsUnlimited(t *testing.T) {
	_, addr := serve(t, "tcp")
	s := tap.New(tap.Events{})
	cc := dial(t, addr, grpc.WithTransportCredentials(tap.Credentials(insecure.NewCredentials(), s).Clone()))
	if _, err := healthpb.NewHealthClient(cc).Check(testContext(t), &healthpb.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	if !s.Settled() || s.Limit() != tap.Unlimited {
		t.Errorf("settled %v, limit %d", s.Settled(), s.Limit())
	}
}

func TestAServerThatStopsIsTheCause(t *testing.T) {
	srv, addr := serve(t, "tcp")
	s := tap.New(tap.Events{})
	cc := dial(t, addr, grpc.WithCredentialsBundle(tap.Bundle(insecure.NewCredentials(), nil, s)))
	cc.Connect()
	await(t, cc, connectivity.Ready)
	srv.Stop()
	await(t, cc, connectivity.Idle)
	if s.Cause() == nil {
		t.Error("no cause")
	}
}
