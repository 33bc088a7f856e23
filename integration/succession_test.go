//go:build unix

package integration_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/integration/internal/realserver"
	"github.com/davidwartell/go-grpcpool/internal/pki"
)

// nginx finishes the handshake with a certificate that it does not believe, and answers
// every request with 400. The client's new certificate may well come before nginx has
// been told of its authority: until then the old connection serves.
func TestACertificateThatNginxDoesNotBelieveFailsNoCall(t *testing.T) {
	certs, other := localhost(t), localhost(t)
	nginx := realserver.StartNginx(t, realserver.Config{Certs: certs, MaxStreams: limit, Backend: startBackend(t, nil)})
	dir := t.TempDir()
	caFile, certFile, keyFile := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writeAll(t, map[string][]byte{caFile: certs.CA.PEM, certFile: certs.Client.CertPEM, keyFile: certs.Client.KeyPEM})
	provider, err := identity.FromFiles(caFile, certFile, keyFile,
		identity.WithReloadInterval(100*time.Millisecond), identity.WithReplaceWithin(200*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	factory, err := grpcpool.NewIdentityFactory(nginx.Addr, provider)
	if err != nil {
		t.Fatal(err)
	}
	pool := newPool(t, factory)
	ctx := within(t, soon)
	call := func() {
		if err := checkHealth(ctx, pool); err != nil {
			t.Fatalf("a call failed: %v", err)
		}
	}
	call()
	old := pool.Stats().Current.Subchannels[0].Connections[0].ID

	writeAll(t, map[string][]byte{certFile: other.Client.CertPEM, keyFile: other.Client.KeyPEM})
	eventually(t, "nginx has refused a successor", func() bool {
		call()
		return strings.Contains(pool.Stats().Current.Subchannels[0].LastError, "HTTP 400")
	})
	next, err := certs.CA.Issue(pki.Request{CommonName: "renewed"})
	if err != nil {
		t.Fatal(err)
	}
	writeAll(t, map[string][]byte{certFile: next.CertPEM, keyFile: next.KeyPEM})
	eventually(t, "a certificate that nginx believes is in use", func() bool {
		call()
		now := connectionsOf(pool.Stats().Current)
		return len(now) > 0 && !now[old]
	})
	call()
}
