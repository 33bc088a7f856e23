package main

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// call is a call as the server saw it: from which connection, with whose certificate.
type call struct{ from, subject string }

// startServer starts a server that wants client certificates, and writes those of a
// client into the current directory.
func startServer(t *testing.T) (*grpcpooltest.Server, <-chan call) {
	t.Helper()
	calls := make(chan call)
	tell := func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		p, _ := peer.FromContext(ctx)
		leaf := p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0]
		select {
		case calls <- call{p.Addr.String(), leaf.Subject.CommonName}:
		case <-ctx.Done():
		case <-t.Context().Done():
		}
		return handle(ctx, request)
	}
	certs, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	write(t, certs)
	return grpcpooltest.NewServer(t, grpcpooltest.WithCerts(certs),
		grpcpooltest.WithServerOptions(grpc.UnaryInterceptor(tell))), calls
}

func write(t *testing.T, certs *grpcpooltest.Certs) {
	t.Helper()
	if _, err := certs.WriteFiles("."); err != nil {
		t.Fatal(err)
	}
}

func TestItShowsTheCertificateOfTheFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	server, calls := startServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, server.Addr()) }()
	if got := <-calls; got.subject != "client" {
		t.Errorf("the server was called by %q, want the client", got.subject)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// The channel and the pool both move to connections with the new certificate.
func TestConnectionsFollowTheFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	server, calls := startServer(t)
	provider, err := identity.FromFiles("ca.pem", "client.pem", "client-key.pem", identity.WithReplaceWithin(time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- callEvery(ctx, time.Millisecond, server.Addr(), provider) }()
	waitForTwoConnectionsOf(t, calls, "client")

	renewed, err := server.Certs().Renew(grpcpooltest.WithClientCert(grpcpooltest.CertRequest{CommonName: "renewed"}))
	if err != nil {
		t.Fatal(err)
	}
	write(t, renewed)
	go func() {
		if err := provider.Reload(ctx); err != nil {
			t.Error(err)
		}
	}()
	waitForTwoConnectionsOf(t, calls, "renewed")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := provider.Close(); err != nil {
		t.Error(err)
	}
}

// waitForTwoConnectionsOf waits for calls with the certificate on the channel's
// connection and on the pool's.
func waitForTwoConnectionsOf(t *testing.T, calls <-chan call, subject string) {
	t.Helper()
	from := make(map[string]bool)
	for late := time.After(20 * time.Second); len(from) < 2; {
		select {
		case c := <-calls:
			if c.subject == subject {
				from[c.from] = true
			}
		case <-late:
			t.Fatalf("%d connections showed the certificate of %q, want two", len(from), subject)
		}
	}
}
