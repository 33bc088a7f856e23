package integration_test

import (
	"crypto/tls"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/integration/internal/realserver"
)

// embeddedEtcd is an etcd in the test's process that demands client certificates.
type embeddedEtcd struct {
	t       *testing.T
	cfg     *embed.Config
	addr    string      // of its clients; the same across starts
	client  *tls.Config // for AwaitHandshake
	running *embed.Etcd // nil while stopped
}

// startEtcd starts an etcd that is stopped when the test ends.
func startEtcd(t *testing.T, certs *grpcpooltest.Certs, opts ...func(*testing.T, *embed.Config)) *embeddedEtcd {
	t.Helper()
	client, err := realserver.ClientTLS(certs)
	if err != nil {
		t.Fatal(err)
	}
	e := &embeddedEtcd{t: t, addr: realserver.FreeAddr(t), client: client}
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(t.TempDir(), "data")
	cfg.LogLevel = "fatal" // its log would drown the tests'
	cfg.TickMs, cfg.ElectionMs = 10, 100
	cfg.UnsafeNoFsync = true      // no test cuts the power, and a busy disk takes seconds
	cfg.EnableGRPCGateway = false // a second client, which would need a certificate too
	cfg.ListenClientUrls = []url.URL{{Scheme: "https", Host: e.addr}}
	cfg.AdvertiseClientUrls = cfg.ListenClientUrls
	cfg.ListenPeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}} // there are no peers
	cfg.AdvertisePeerUrls = cfg.ListenPeerUrls
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.ClientTLSInfo = serverTLS(t, certs)
	for _, opt := range opts {
		opt(t, cfg)
	}
	e.cfg = cfg
	t.Cleanup(e.Kill)
	e.Start()
	return e
}

// grpcOnly gives etcd's HTTP a port of its own, upon which gRPC gets grpc-go's
// server on the other instead of net/http's.
func grpcOnly(t *testing.T, cfg *embed.Config) {
	t.Helper()
	cfg.ListenClientHttpUrls = []url.URL{{Scheme: "https", Host: realserver.FreeAddr(t)}}
}

func serverTLS(t *testing.T, certs *grpcpooltest.Certs) transport.TLSInfo {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return transport.TLSInfo{
		CertFile:       write("server.pem", certs.Server.CertPEM),
		KeyFile:        write("server.key", certs.Server.KeyPEM),
		TrustedCAFile:  write("ca.pem", certs.CA.PEM),
		ClientCertAuth: true,
	}
}

// Start starts etcd and returns when it serves clients.
func (e *embeddedEtcd) Start() {
	e.t.Helper()
	running, err := embed.StartEtcd(e.cfg)
	if err != nil {
		e.t.Fatalf("starting etcd: %v", err)
	}
	e.running = running
	if err := realserver.AwaitHandshake(within(e.t, soon), e.addr, e.client); err != nil {
		e.t.Fatal(err)
	}
}

// Kill stops etcd the way its own command does on SIGTERM: it says goodbye to its
// clients (GOAWAY), gives open streams some five seconds, and closes.
func (e *embeddedEtcd) Kill() {
	if e.running != nil {
		e.running.Close()
		e.running = nil
	}
}
