package ping_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/ping"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// listen skips the test where there is no such address, as without IPv6.
func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		if os.Getenv("GRPCPOOL_REQUIRE_ALL") != "" {
			t.Fatal(err)
		}
		t.Skipf("this machine cannot listen there: %v", err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func serveHealth(t *testing.T, l net.Listener, opts ...grpc.ServerOption) {
	t.Helper()
	server := grpc.NewServer(opts...)
	healthpb.RegisterHealthServer(server, health.NewServer())
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-served })
}

// scheme is for targets whose name has several addresses.
const scheme = "pingtest"

func resolvesTo(t *testing.T, addresses ...string) (target string) {
	t.Helper()
	builder := manual.NewBuilderWithScheme(scheme)
	var state resolver.State
	for _, a := range addresses {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: a}}})
	}
	builder.InitialState(state)
	resolver.Register(builder)
	return scheme + ":///several"
}

// A name has an IPv6 and an IPv4 address, and only one of them reaches the server, as in
// networks where IPv6 does not work.
func TestAServerIsReachedByTheAddressThatWorks(t *testing.T) {
	for name, dead := range map[string]string{"IPv6 leads nowhere": "[::1]:0", "IPv4 leads nowhere": "127.0.0.1:0"} {
		for _, kind := range []string{"refused", "silent"} {
			t.Run(name+", "+kind, func(t *testing.T) {
				other := "127.0.0.1:0"
				if dead == other {
					other = "[::1]:0"
				}
				silent, l := listen(t, "tcp", dead), listen(t, "tcp", other)
				if kind == "refused" {
					silent.Close()
				}
				serveHealth(t, l)
				addresses := []string{silent.Addr().String(), l.Addr().String()}
				findings, err := ping.Probe(t.Context(), ping.Target{Address: resolvesTo(t, addresses...)})
				if err != nil || findings.Connected != addresses[1] || findings.HTTP2 == nil || len(findings.Addresses) != 2 {
					t.Errorf("%+v, %v", findings, err)
				}
			})
		}
	}
}

func TestWhenNoAddressWorksTheLastErrorIsTold(t *testing.T) {
	one, two := listen(t, "tcp", "127.0.0.1:0"), listen(t, "tcp", "127.0.0.1:0")
	one.Close()
	two.Close()
	findings, err := ping.Probe(t.Context(), ping.Target{Address: resolvesTo(t, one.Addr().String(), two.Addr().String())})
	if err == nil || findings.Connected != "" || len(findings.Addresses) != 2 {
		t.Fatalf("%+v, %v", findings, err)
	}
	if text := ping.Explain(err); !strings.HasPrefix(text, "nothing is listening at that address (") || !strings.Contains(text, "dial tcp 127.0.0.1:") {
		t.Error(text)
	}
}

func TestUnixSocketsOfAllKindsAreReached(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for listening, targets := range map[string][]string{
		dir + "/s": {"unix:" + dir + "/s", "unix://" + dir + "/s", "unix:s"},
		"@grpcpool-ping-" + strings.ReplaceAll(dir, "/", "-"): {
			"unix-abstract:grpcpool-ping-" + strings.ReplaceAll(dir, "/", "-"), "unix:@grpcpool-ping-" + strings.ReplaceAll(dir, "/", "-"),
		},
	} {
		t.Run(listening[:1], func(t *testing.T) {
			if listening[0] == '@' && runtime.GOOS != "linux" {
				t.Skip("abstract sockets are Linux's")
			}
			serveHealth(t, listen(t, "unix", listening))
			for _, target := range targets {
				findings, err := ping.Probe(t.Context(), ping.Target{Address: target})
				if err != nil || findings.Connected != listening && findings.Connected != "s" {
					t.Errorf("%s: %+v, %v", target, findings, err)
				}
			}
		})
	}
}

// The name in the certificate is the channel's authority, whatever the address.
func TestTheCertificateIsForTheNameThatGRPCAsksFor(t *testing.T) {
	local, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	config, err := local.CA.ServerConfig(local.Server)
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t, "tcp", "127.0.0.1:0")
	serveHealth(t, l, grpc.Creds(credentials.NewTLS(config)))
	pair, err := tls.X509KeyPair(local.Client.CertPEM, local.Client.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(local.CA.PEM)
	client := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{pair}}
	for _, tt := range []struct {
		target, name string
		ok           bool
	}{
		{l.Addr().String(), "", true},
		{resolvesTo(t, l.Addr().String()), "", false},
		{scheme + ":///several", "localhost", true},
		{l.Addr().String(), "elsewhere.example", false},
	} {
		findings, err := ping.Probe(t.Context(), ping.Target{Address: tt.target, TLS: client, Name: tt.name})
		if (err == nil) != tt.ok || findings.TLS == nil {
			t.Errorf("%+v: %+v, %v", tt, findings, err)
		}
	}
}

func TestAProbeOfManySilentAddressesEndsWithItsContext(t *testing.T) {
	addresses := make([]string, 0, 5)
	for range cap(addresses) {
		addresses = append(addresses, listen(t, "tcp", "127.0.0.1:0").Addr().String())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond) // several are tried at once
	defer cancel()
	if findings, err := ping.Probe(ctx, ping.Target{Address: resolvesTo(t, addresses...)}); err == nil || findings.Connected == "" {
		t.Errorf("%+v, %v", findings, err)
	}
}
