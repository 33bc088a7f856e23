//go:build unix

package proxy_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"google.golang.org/grpc/credentials"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// tokenGuard makes a token for the proxy, and the flags that make it ask for it.
func tokenGuard(t *testing.T) (proxyToken, []string) {
	t.Helper()
	token := rand.Text()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return proxyToken(token), []string{"--token-file", file}
}

// proxyToken is what a client shows the proxy.
type proxyToken string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (p proxyToken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"proxy-authorization": "Bearer " + string(p)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: the proxy takes
// the token on loopback without TLS.
func (proxyToken) RequireTransportSecurity() bool { return false }

// certificateGuard makes certificates for the proxy and its client, under an authority
// that is not the server's, and the flags that make it ask for the client's.
func certificateGuard(t *testing.T) (credentials.TransportCredentials, []string) {
	t.Helper()
	certs, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	front, err := certs.CA.Issue(grpcpooltest.CertRequest{Hosts: []string{apiName}})
	if err != nil {
		t.Fatal(err)
	}
	flags := make([]string, 0, 6)
	for name, data := range map[string][]byte{"ca": certs.CA.PEM, "cert": front.CertPEM, "key": front.KeyPEM} {
		file := filepath.Join(t.TempDir(), name+".pem")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		flags = append(flags, "--listen-"+name, file)
	}
	client, err := tls.X509KeyPair(certs.Client.CertPEM, certs.Client.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certs.CA.PEM)
	return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{client}}), flags
}

var listensOnTCP = regexp.MustCompile(`msg=listening network=tcp address=(\S+)`)

// onTCP are the flags that make the proxy listen on TCP as well; tcp finds out where.
func onTCP(more ...[]string) []string {
	flags := []string{"--listen", "127.0.0.1:0"}
	for _, m := range more {
		flags = append(flags, m...)
	}
	return flags
}

func (r *running) tcp() string {
	r.t.Helper()
	var found []string
	eventually(r.t, "the proxy says where it listens", func() bool {
		found = listensOnTCP.FindStringSubmatch(r.log.String())
		return found != nil
	})
	return found[1]
}
