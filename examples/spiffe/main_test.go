package main

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	domain   = spiffeid.RequireTrustDomainFromString("example.org")
	clientID = spiffeid.RequireFromPath(domain, "/client")
	serverID = spiffeid.RequireFromPath(domain, "/server")
)

// startServer starts a server that has serverID and lets in clientID, and tells the
// serial number of each SVID that it is shown.
func startServer(t *testing.T, ca *grpcpooltest.CA) (address string, shown <-chan string) {
	t.Helper()
	cert := svid(t, ca, serverID)
	own := &x509svid.SVID{ID: serverID, Certificates: []*x509.Certificate{cert.Leaf}, PrivateKey: cert.PrivateKey.(crypto.Signer)}
	root, _ := pem.Decode(ca.PEM)
	authority, err := x509.ParseCertificate(root.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	bundle := x509bundle.FromX509Authorities(domain, []*x509.Certificate{authority})
	serials := make(chan string, 100)
	config := tlsconfig.MTLSServerConfig(own, bundle, tlsconfig.AuthorizeID(clientID))
	config.VerifyConnection = func(state tls.ConnectionState) error {
		serials <- state.PeerCertificates[0].SerialNumber.String()
		return nil
	}
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
	healthpb.RegisterHealthServer(server, health.NewServer())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(lis); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("serving: %v", err)
		}
	})
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	return lis.Addr().String(), serials
}

func connectTo(t *testing.T, a *agent, address string, id spiffeid.ID) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := connect(ctx, address, id, workloadapi.WithClientOptions(workloadapi.WithAddr(a.addr)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

func check(t *testing.T, c *client) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := healthpb.NewHealthClient(c.pool).Check(ctx, &healthpb.HealthCheckRequest{})
	return err
}

func newCA(t *testing.T) *grpcpooltest.CA {
	t.Helper()
	ca, err := grpcpooltest.NewCA("SPIFFE test CA")
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// A new SVID from the agent gets to the server with nothing done for it, on a
// connection that takes the old one's place.
func TestConnectionsFollowTheSVID(t *testing.T) {
	ca := newCA(t)
	a := startAgent(t, ca, clientID)
	address, shown := startServer(t, ca)
	c := connectTo(t, a, address, serverID)
	if err := check(t, c); err != nil {
		t.Fatal(err)
	}
	first := <-shown
	next := a.give(t, ca, clientID)
	if next == first {
		t.Fatal("the agent gave the same SVID again")
	}
	every := time.NewTicker(10 * time.Millisecond)
	defer every.Stop()
	for late := time.After(30 * time.Second); ; {
		select {
		case serial := <-shown:
			if serial != next {
				t.Errorf("the server was shown %s, want %s", serial, next)
			}
			return
		case <-every.C:
			if err := check(t, c); err != nil {
				t.Fatal(err)
			}
		case <-late:
			t.Fatal("the server was not shown the new SVID")
		}
	}
}

func TestAServerOfAnotherIDIsRefusedWithTheReason(t *testing.T) {
	ca := newCA(t)
	a := startAgent(t, ca, clientID)
	address, _ := startServer(t, ca)
	other := spiffeid.RequireFromPath(domain, "/other")
	err := check(t, connectTo(t, a, address, other))
	if err == nil || !strings.Contains(err.Error(), "unexpected ID") {
		t.Errorf("got %v, want that the ID is unexpected", err)
	}
}
