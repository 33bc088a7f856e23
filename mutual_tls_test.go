package grpcpool_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/identity"
)

func localhost(t testing.TB) *grpcpooltest.Certs {
	t.Helper()
	l, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func issue(t testing.TB, ca *grpcpooltest.CA, r grpcpooltest.CertRequest) grpcpooltest.KeyPair {
	t.Helper()
	pair, err := ca.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func serverTLS(t testing.TB, ca *grpcpooltest.CA, server grpcpooltest.KeyPair) *tls.Config {
	t.Helper()
	config, err := ca.ServerConfig(server)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// newFactory is NewMutualTLSFactory for l's client.
func newFactory(l *grpcpooltest.Certs, address string, opts ...grpcpool.FactoryOption) (*grpcpool.Factory, error) {
	return grpcpool.NewMutualTLSFactory(l.CA.PEM, l.Client.CertPEM, l.Client.KeyPEM, address, 30*time.Second, 10*time.Second, nil, opts...)
}

func TestBadCredentialsAreNamedAtConstruction(t *testing.T) {
	l := localhost(t)
	now := time.Now()
	expired := issue(t, l.CA, grpcpooltest.CertRequest{CommonName: "late", NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)})
	early := issue(t, l.CA, grpcpooltest.CertRequest{CommonName: "early", NotBefore: now.Add(time.Hour)})
	serverOnly := issue(t, l.CA, grpcpooltest.CertRequest{CommonName: "srv", Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	other := issue(t, l.CA, grpcpooltest.CertRequest{})
	brokenDER := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("not DER")})
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})

	ca, cert, key := l.CA.PEM, l.Client.CertPEM, l.Client.KeyPEM
	for name, test := range map[string]struct {
		ca, cert, key []byte
		want          []string // parts of the error
	}{
		"CA empty":               {nil, cert, key, []string{"caCertPEM", "empty"}},
		"CA blank":               {[]byte(" \n"), cert, key, []string{"caCertPEM", "empty"}},
		"CA garbage":             {[]byte("garbage"), cert, key, []string{"caCertPEM", "not PEM"}},
		"CA a key":               {key, cert, key, []string{"caCertPEM", "no certificate", `"PRIVATE KEY"`}},
		"CA broken":              {brokenDER, cert, key, []string{"caCertPEM", "certificate 1", "parsed"}},
		"CA expired":             {expired.CertPEM, cert, key, []string{"caCertPEM", "CN=late", "expired"}},
		"certificate empty":      {ca, nil, key, []string{"clientCertPEM", "empty"}},
		"certificate garbage":    {ca, []byte("garbage"), key, []string{"clientCertPEM", "not PEM"}},
		"certificate expired":    {ca, expired.CertPEM, expired.KeyPEM, []string{"clientCertPEM", "CN=late", "expired"}},
		"certificate not yet":    {ca, early.CertPEM, early.KeyPEM, []string{"clientCertPEM", "CN=early", "not valid before"}},
		"certificate for server": {ca, serverOnly.CertPEM, serverOnly.KeyPEM, []string{"clientCertPEM", "CN=srv", "not for client authentication"}},
		"key empty":              {ca, cert, nil, []string{"clientKeyPEM", "empty"}},
		"key garbage":            {ca, cert, []byte("garbage"), []string{"clientKeyPEM", "not PEM"}},
		"key of another":         {ca, cert, other.KeyPEM, []string{"clientKeyPEM", "does not match"}},
		"key encrypted":          {ca, cert, encrypted, []string{"clientKeyPEM", "encrypted"}},
		"key a certificate":      {ca, cert, cert, []string{"clientKeyPEM", "clientCertPEM"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := grpcpool.NewMutualTLSFactory(test.ca, test.cert, test.key, "localhost:1", 0, 0, nil)
			wantError(t, err, append(test.want, "grpcpool: ")...)
			if bytes.Contains(test.key, []byte("PRIVATE KEY-----\n")) && strings.Contains(err.Error(), string(test.key)) {
				t.Error("the error tells the key")
			}
		})
	}
}

func TestOneValidRootAmongExpiredOnesIsEnough(t *testing.T) {
	l := localhost(t)
	now := time.Now()
	expired := issue(t, l.CA, grpcpooltest.CertRequest{NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)})
	bundle := append(append([]byte(nil), expired.CertPEM...), l.CA.PEM...)
	if _, err := grpcpool.NewMutualTLSFactory(bundle, l.Client.CertPEM, l.Client.KeyPEM, "localhost:1", 0, 0, nil); err != nil {
		t.Error(err)
	}
}

func TestUnusableAddressesAreRefusedAtConstruction(t *testing.T) {
	for address, want := range map[string]string{
		"":                        "empty",
		"localhost:":              "neither 1 to 65535",
		"localhost:0":             "neither 1 to 65535",
		"localhost:65536":         "neither 1 to 65535",
		"localhost:no-such-port":  "neither 1 to 65535",
		"a:b:c":                   "too many colons",
		"a b/x:1":                 `" " cannot be part of a host or a port`,
		"a b":                     `" " cannot be part of a host or a port`,
		"localhost:443 ":          `" " cannot be part of a host or a port`,
		"localhost/path:443":      `"/" cannot be part of a host or a port`,
		"localhost:443/":          `"/" cannot be part of a host or a port`,
		"nosuchscheme://host:443": `no resolver is registered for the scheme "nosuchscheme"`,
		"dns://\x7f":              "serverAddress",
	} {
		_, err := grpcpool.NewFactory(address, insecure.NewCredentials())
		wantError(t, err, "grpcpool: ", want)
	}
	for _, address := range []string{
		"localhost", "localhost:443", "localhost:https", "127.0.0.1:1", "[::1]:1", "::1",
		"dns:///localhost:443", "dns:localhost:443", "passthrough:///x", "unix:/tmp/x", "unix:///tmp/x",
		"unix:/tmp/a b/x", "passthrough:///a b/x:1", "bücher.example:1", "my_host:1", "a%20b:1",
	} {
		if _, err := grpcpool.NewFactory(address, insecure.NewCredentials()); err != nil {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// With another default resolver and a dialer of its own, a program has its own addresses.
func TestTheAddressesOfAnotherDefaultResolverAreAccepted(t *testing.T) {
	resolver.SetDefaultScheme("passthrough")
	defer resolver.SetDefaultScheme("dns") // the default of grpc.NewClient
	for _, address := range []string{"/run/api.sock", "rack 7/api:x", "a:b:c"} {
		if _, err := grpcpool.NewFactory(address, insecure.NewCredentials()); err != nil {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestBadOptionsAreRefusedAtConstruction(t *testing.T) {
	l := localhost(t)
	for name, opt := range map[string]grpcpool.FactoryOption{
		"nil":             nil,
		"WithPing":        grpcpool.WithPing(nil),
		"WithLogger":      grpcpool.WithLogger(nil),
		"WithDialOptions": grpcpool.WithDialOptions(nil),
		"WithServerName":  grpcpool.WithServerName("https://x"),
		"WithServerName:": grpcpool.WithServerName(""),
	} {
		_, err := newFactory(l, "localhost:1", opt)
		wantError(t, err, "grpcpool: ", name)
	}
	_, err := grpcpool.NewFactory("localhost:1", nil)
	wantError(t, err, "creds is nil")
	for _, provider := range []*identity.Provider{nil, new(identity.Provider)} {
		_, err = grpcpool.NewIdentityFactory("localhost:1", provider)
		wantError(t, err, "grpcpool: provider is nil or empty")
	}
}

// testContext ends long before the test's own deadline and long after anything
// that a test waits for.
func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func wantError(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

func TestTheServerNameCanBeAnother(t *testing.T) {
	l := localhost(t)
	address := startTLS(t, serverTLS(t, l.CA, issue(t, l.CA, grpcpooltest.CertRequest{Hosts: []string{"other.example"}})))
	wantDial(t, l, address, []string{"doesn't contain any IP SANs"})
	wantDial(t, l, address, nil, grpcpool.WithServerName("other.example"))
	wantDial(t, l, address, []string{"other.example"}, grpcpool.WithServerName("third.example"))
	wantDial(t, l, address, nil, grpcpool.WithServerName("other.example"),
		grpcpool.WithDialOptions(grpc.WithAuthority("tenant.example")))
}

// The option is for every factory: TLS credentials verify the name, and plaintext RPCs
// have it as their authority. Credentials that were made for another name are refused.
func TestTheServerNameIsForAnyCredentials(t *testing.T) {
	l := localhost(t)
	address := startTLS(t, serverTLS(t, l.CA, issue(t, l.CA, grpcpooltest.CertRequest{Hosts: []string{"other.example"}})))
	name := grpcpool.WithServerName("other.example")
	f, err := grpcpool.NewFactory(address, clientCreds(t, l, l.Client), name)
	if err != nil {
		t.Fatal(err)
	}
	wantConnection(t, f)
	provider, err := identity.FromPEM(l.CA.PEM, l.Client.CertPEM, l.Client.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	if f, err = grpcpool.NewIdentityFactory(address, provider, name); err != nil {
		t.Fatal(err)
	}
	wantConnection(t, f)
	config := clientConfig(t, l, l.Client)
	config.ServerName = "third.example"
	_, err = grpcpool.NewFactory(address, credentials.NewTLS(config), name)
	wantError(t, err, "grpcpool: ", "third.example", "other.example")

	authorities := make(chan []string, 1)
	server := grpcpooltest.NewServer(t, grpcpooltest.WithoutHealth(), grpcpooltest.WithServerOptions(
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			md, _ := metadata.FromIncomingContext(stream.Context())
			authorities <- md.Get(":authority")
			return status.Error(codes.Unimplemented, "not here")
		}),
	))
	conn, err := plainFactory(t, server.Addr(), name).NewConnection(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if got := <-authorities; !slices.Equal(got, []string{"other.example"}) {
		t.Errorf("the authority of a plaintext RPC is %q", got)
	}
}

// A name from a file or from a command ends with a line break.
func TestANameWithALineBreakIsRefused(t *testing.T) {
	l := localhost(t)
	for _, name := range []string{"api.example\n", " api.example", "api\texample", "api\x00", "\n"} {
		_, err := newFactory(l, "localhost:1", grpcpool.WithServerName(name))
		wantError(t, err, "grpcpool: WithServerName: ", "is not a host name")
	}
	_, err := newFactory(l, "localhost:1", grpcpool.WithServerName("bücher.example"))
	wantError(t, err, "grpcpool: WithServerName: ", "xn--")
	for _, name := range []string{"api.example", "api.example.", "a_b.example", "*.example", "10.0.0.1", "::1", "[::1]", "[::1]:443", "api:443"} {
		if _, err := newFactory(l, "localhost:1", grpcpool.WithServerName(name)); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// wantDial makes a channel and wants it to fail for the reasons, or, without any,
// to succeed.
func wantDial(t *testing.T, l *grpcpooltest.Certs, address string, reasons []string, opts ...grpcpool.FactoryOption) {
	t.Helper()
	f, err := newFactory(l, address, opts...)
	if err != nil {
		t.Fatal(err)
	}
	wantConnection(t, f, reasons...)
}

func wantConnection(t *testing.T, f *grpcpool.Factory, reasons ...string) {
	t.Helper()
	conn, err := f.NewConnection(testContext(t))
	if len(reasons) > 0 {
		wantError(t, err, append(slices.Clone(reasons), "grpcpool: connecting to")...)
		wantNotOK(t, err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
