package integration_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/internal/pki"
	"github.com/davidwartell/go-grpcpool/scale"
)

// The client's certificate is renewed on disk while etcd is in use: no call fails,
// and every connection is made anew under the new certificate.
func TestARenewedCertificateIsShownToEtcdWithoutAFailedCall(t *testing.T) {
	certs := localhost(t)
	etcd := startEtcd(t, certs)
	dir := t.TempDir()
	caFile, certFile, keyFile := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writeAll(t, map[string][]byte{caFile: certs.CA.PEM, certFile: certs.Client.CertPEM, keyFile: certs.Client.KeyPEM})
	provider, err := identity.FromFiles(caFile, certFile, keyFile,
		identity.WithReloadInterval(100*time.Millisecond), identity.WithReplaceWithin(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	factory, err := grpcpool.NewIdentityFactory(etcd.addr, provider)
	if err != nil {
		t.Fatal(err)
	}
	pool := newPool(t, factory)
	l := startLoad(t, pool, nil)
	eventually(t, "a good call", func() bool { n, _ := l.goodSince(time.Time{}); return n > 0 })
	old := connectionsOf(pool.Stats().Current)
	if len(old) == 0 {
		t.Fatal("there are no connections under load")
	}

	next, err := certs.CA.Issue(pki.Request{CommonName: "renewed"})
	if err != nil {
		t.Fatal(err)
	}
	renewed := time.Now()
	writeAll(t, map[string][]byte{certFile: next.CertPEM, keyFile: next.KeyPEM})
	eventually(t, "connections that are all new", func() bool {
		now := connectionsOf(pool.Stats().Current)
		return len(now) > 0 && !slices.ContainsFunc(slices.Collect(maps.Keys(now)), func(id uint64) bool { return old[id] })
	})
	allNew := time.Now()
	eventually(t, "a good call since", func() bool { n, _ := l.goodSince(allNew); return n > 0 })
	l.stop()
	good, _ := l.goodSince(time.Time{})
	t.Logf("%d good calls; all connections new after %v", good, allNew.Sub(renewed))
	if n, report := l.failures(); n != 0 {
		t.Errorf("%d calls failed:\n%s", n, report)
	}
	if id := pool.Stats().Identity; id.Generation != 2 || id.Subject != "CN=renewed" || id.LastError != nil {
		t.Errorf("the identity is %+v, want the second", id)
	}
}

// connectionsOf are the IDs of a channel's connections.
func connectionsOf(c scale.Channel) map[uint64]bool {
	ids := make(map[uint64]bool)
	for _, s := range c.Subchannels {
		for _, conn := range s.Connections {
			ids[conn.ID] = true
		}
	}
	return ids
}

func writeAll(t *testing.T, contents map[string][]byte) {
	t.Helper()
	for path, content := range contents {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
