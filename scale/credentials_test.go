package scale_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
)

// certificates are a server's and a client's TLS configuration that trust each
// other.
func certificates(tb testing.TB) (serverTLS, clientTLS *tls.Config) {
	tb.Helper()
	local, err := grpcpooltest.NewCerts()
	if err != nil {
		tb.Fatal(err)
	}
	serverTLS, err = local.CA.ServerConfig(local.Server)
	if err != nil {
		tb.Fatal(err)
	}
	pair, err := tls.X509KeyPair(local.Client.CertPEM, local.Client.KeyPEM)
	if err != nil {
		tb.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(local.CA.PEM)
	return serverTLS, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{pair}}
}

// token is a per-RPC credential.
type token struct{ secret string }

func (t token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": t.secret}, nil
}

func (token) RequireTransportSecurity() bool { return true }

func TestEveryKindOfCredentialsScales(t *testing.T) {
	serverTLS, clientTLS := certificates(t)
	oneWayTLS := serverTLS.Clone()
	oneWayTLS.ClientAuth = tls.NoClientCert
	client := credentials.NewTLS(clientTLS)
	for _, tc := range []struct {
		name   string
		server *tls.Config
		opts   []grpc.DialOption
		secret []string
	}{
		{"insecure", nil, []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, nil},
		{"TLS", oneWayTLS, []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: clientTLS.RootCAs}))}, nil},
		{"mutual TLS", serverTLS, []grpc.DialOption{grpc.WithTransportCredentials(client)}, nil},
		{"per-RPC credentials", serverTLS, []grpc.DialOption{grpc.WithTransportCredentials(client), grpc.WithPerRPCCredentials(token{"a"})}, []string{"a"}},
		{"a bundle", serverTLS, []grpc.DialOption{grpc.WithCredentialsBundle(newBundle(client, token{"b"}))}, []string{"b"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var opts []grpc.ServerOption
			if tc.server != nil {
				opts = append(opts, grpc.Creds(credentials.NewTLS(tc.server)))
			}
			opts = append(opts, grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
				md, _ := metadata.FromIncomingContext(ctx)
				if got := md.Get("authorization"); strings.Join(got, " ") != strings.Join(tc.secret, " ") {
					return nil, errors.New("wrong authorization")
				}
				return h(ctx, req)
			}))
			s := startServer(t, serverConfig{limit: 2, delay: 2 * time.Millisecond, options: opts})
			cc, err := scale.NewClient("passthrough:///"+s.addr, append(tc.opts, scale.WithMaxConnections(3))...)
			if err != nil {
				t.Fatal(err)
			}
			defer cc.Close()
			stub := testpb.NewTestServiceClient(cc)
			mustHammer(t, stub, 20, 10)
			if got := s.accepted.Load(); got != 3 {
				t.Errorf("%d connections, want 3", got)
			}
			var p peer.Peer
			if _, err := stub.EmptyCall(testContext(t), &testpb.Empty{}, grpc.Peer(&p)); err != nil {
				t.Fatal(err)
			}
			if _, isTLS := p.AuthInfo.(credentials.TLSInfo); isTLS != (tc.server != nil) {
				t.Errorf("the peer's AuthInfo is %T", p.AuthInfo)
			}
		})
	}
}

type credsBundle struct {
	transport credentials.TransportCredentials
	perRPC    credentials.PerRPCCredentials
}

func newBundle(transport credentials.TransportCredentials, perRPC credentials.PerRPCCredentials) credentials.Bundle {
	return credsBundle{transport, perRPC}
}

func (b credsBundle) TransportCredentials() credentials.TransportCredentials { return b.transport }
func (b credsBundle) PerRPCCredentials() credentials.PerRPCCredentials       { return b.perRPC }
func (b credsBundle) NewWithMode(string) (credentials.Bundle, error)         { return b, nil }

// Under TLS 1.3 the client's handshake is over when the server refuses it, and
// grpc-go alone often reports no more than a broken pipe.
func TestARefusedClientCertificateIsNamedAsTheReason(t *testing.T) {
	serverTLS, clientTLS := certificates(t)
	clientTLS.Certificates = nil
	s := startServer(t, serverConfig{options: []grpc.ServerOption{grpc.Creds(credentials.NewTLS(serverTLS))}})
	for range 20 {
		c := newChannel(t, "passthrough:///"+s.addr, grpc.WithTransportCredentials(credentials.NewTLS(clientTLS)))
		_, err := c.stub.EmptyCall(testContext(t), &testpb.Empty{})
		if err == nil || !strings.Contains(err.Error(), "certificate required") {
			t.Fatalf("the error is %v (%v), want one that names the certificate", err, status.Code(err))
		}
		_ = c.Close()
	}
}
