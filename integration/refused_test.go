package integration_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
)

// withoutCertificate is a factory whose clients trust the server and show nothing
// of their own.
func withoutCertificate(t *testing.T, certs *grpcpooltest.Certs, addr string) *grpcpool.Factory {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certs.CA.PEM)
	factory, err := grpcpool.NewFactory(addr, credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}))
	if err != nil {
		t.Fatal(err)
	}
	return factory
}

// showing is a factory whose clients trust the server's authority and show what
// another has signed.
func showing(t *testing.T, client grpcpooltest.KeyPair, certs *grpcpooltest.Certs, addr string) *grpcpool.Factory {
	t.Helper()
	return mutualTLS(t, &grpcpooltest.Certs{CA: certs.CA, Client: client}, addr)
}

func TestEtcdRefusesAClientAndTheErrorNamesTheReason(t *testing.T) {
	certs, other := localhost(t), localhost(t)
	etcd := startEtcd(t, certs)
	for _, c := range []struct {
		name    string
		factory *grpcpool.Factory
		reason  string
	}{
		{"no certificate", withoutCertificate(t, certs, etcd.addr), "certificate required"},
		{"a certificate of another CA", showing(t, other.Client, certs, etcd.addr), "unknown certificate authority"},
		{"a server that the client does not trust", mutualTLS(t, other, etcd.addr), "certificate signed by unknown authority"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pool := newPool(t, c.factory)
			_, err := pool.Get(within(t, soon))
			wantRefused(t, err, c.reason)
			err = put(within(t, soon), pool, "key", "value")
			wantRefused(t, err, c.reason)
			s := pool.Stats()
			connected := func(c scale.Subchannel) bool { return len(c.Connections) > 0 }
			if s.Leases != 0 || s.Channels != 1 || slices.ContainsFunc(s.Current.Subchannels, connected) {
				t.Errorf("after the refusal: %+v", s) // the channel stays, and dials again by itself
			}
		})
	}
}

func wantRefused(t *testing.T, err error, reason string) {
	t.Helper()
	if !errors.Is(err, grpcpool.ErrConnectionNotOK) {
		t.Fatalf("%v is not ErrConnectionNotOK", err)
	}
	if code := status.Code(err); code != codes.Unavailable {
		t.Errorf("%v has the code %v, want Unavailable", err, code)
	}
	if !strings.Contains(err.Error(), reason) {
		t.Errorf("%q does not name the reason, %q", err, reason)
	}
}
