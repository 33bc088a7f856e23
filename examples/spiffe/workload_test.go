package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// agent is a Workload API (SPIFFE Workload API, section 5) on a Unix socket that
// gives everybody the same SVID.
type agent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer

	addr string

	mu      sync.Mutex // guards what follows
	answer  *workload.X509SVIDResponse
	changed chan struct{} // closed when answer changes, and made anew
}

func startAgent(t testing.TB, ca *grpcpooltest.CA, id spiffeid.ID) *agent {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	lis, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{addr: "unix://" + path, changed: make(chan struct{})}
	a.give(t, ca, id)
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, a)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(lis); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("serving the Workload API: %v", err)
		}
	})
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	return a
}

// give issues a fresh SVID to the workload, and returns its serial number.
func (a *agent) give(t testing.TB, ca *grpcpooltest.CA, id spiffeid.ID) string {
	t.Helper()
	cert := svid(t, ca, id)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	bundle, _ := pem.Decode(ca.PEM)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = &workload.X509SVIDResponse{Svids: []*workload.X509SVID{{
		SpiffeId: id.String(), X509Svid: cert.Certificate[0], X509SvidKey: key, Bundle: bundle.Bytes,
	}}}
	close(a.changed)
	a.changed = make(chan struct{})
	return cert.Leaf.SerialNumber.String()
}

func (a *agent) FetchX509SVID(_ *workload.X509SVIDRequest, stream workload.SpiffeWorkloadAPI_FetchX509SVIDServer) error {
	if md, _ := metadata.FromIncomingContext(stream.Context()); len(md.Get("workload.spiffe.io")) == 0 {
		return status.Error(codes.InvalidArgument, "no security header")
	}
	for {
		a.mu.Lock()
		answer, changed := a.answer, a.changed
		a.mu.Unlock()
		if err := stream.Send(answer); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		}
	}
}

// svid mints an X.509-SVID: a certificate for both sides of TLS whose only name is
// the ID.
func svid(t testing.TB, ca *grpcpooltest.CA, id spiffeid.ID) tls.Certificate {
	t.Helper()
	pair, err := ca.Issue(grpcpooltest.CertRequest{
		URIs:  []*url.URL{id.URL()},
		Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
