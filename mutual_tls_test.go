package grpcpool_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/internal/grpctest"
	"github.com/davidwartell/go-grpcpool/internal/pki"
)

func localhost(t testing.TB) *pki.Localhost {
	t.Helper()
	l, err := pki.NewLocalhost()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func issue(t testing.TB, ca *pki.CA, r pki.Request) pki.Pair {
	t.Helper()
	pair, err := ca.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func serverTLS(t testing.TB, ca *pki.CA, server pki.Pair) *tls.Config {
	t.Helper()
	config, err := ca.ServerConfig(server)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// newFactory is NewMutualTLSFactory for l's client.
func newFactory(l *pki.Localhost, address string, opts ...grpcpool.FactoryOption) (*grpcpool.Factory, error) {
	return grpcpool.NewMutualTLSFactory(l.CA.PEM, l.Client.CertPEM, l.Client.KeyPEM, address, 30*time.Second, 10*time.Second, nil, opts...)
}

func TestBadCredentialsAreNamedAtConstruction(t *testing.T) {
	l := localhost(t)
	now := time.Now()
	expired := issue(t, l.CA, pki.Request{CommonName: "late", NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)})
	early := issue(t, l.CA, pki.Request{CommonName: "early", NotBefore: now.Add(time.Hour)})
	serverOnly := issue(t, l.CA, pki.Request{CommonName: "srv", Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	other := issue(t, l.CA, pki.Request{})
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
	expired := issue(t, l.CA, pki.Request{NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)})
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
		"nosuchscheme://host:443": `no resolver is registered for the scheme "nosuchscheme"`,
		"dns://\x7f":              "serverAddress",
	} {
		_, err := grpcpool.NewFactory(address, insecure.NewCredentials())
		wantError(t, err, "grpcpool: ", want)
	}
	for _, address := range []string{
		"localhost", "localhost:443", "localhost:https", "127.0.0.1:1", "[::1]:1", "::1",
		"dns:///localhost:443", "dns:localhost:443", "passthrough:///x", "unix:/tmp/x", "unix:///tmp/x",
	} {
		if _, err := grpcpool.NewFactory(address, insecure.NewCredentials()); err != nil {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestBadOptionsAreRefusedAtConstruction(t *testing.T) {
	l := localhost(t)
	for name, opt := range map[string]grpcpool.FactoryOption{
		"nil":               nil,
		"WithPing":          grpcpool.WithPing(nil),
		"WithLogger":        grpcpool.WithLogger(nil),
		"WithDialOptions":   grpcpool.WithDialOptions(nil),
		"WithMinTLSVersion": grpcpool.WithMinTLSVersion(tls.VersionTLS11),
	} {
		_, err := newFactory(l, "localhost:1", opt)
		wantError(t, err, "grpcpool: ", name)
	}
	_, err := grpcpool.NewFactory("localhost:1", insecure.NewCredentials(), grpcpool.WithMinTLSVersion(tls.VersionTLS12))
	wantError(t, err, "WithMinTLSVersion is for NewMutualTLSFactory")
	_, err = grpcpool.NewFactory("localhost:1", nil)
	wantError(t, err, "creds is nil")
}

func TestTLS12IsSpokenOnlyWhenAskedFor(t *testing.T) {
	l := localhost(t)
	config := serverTLS(t, l.CA, l.Server)
	config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	server := grpctest.Start(t, grpctest.Config{TLS: config})

	strict, err := newFactory(l, server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	_, err = strict.NewConnection(testContext(t))
	wantError(t, err, "protocol version")

	lax, err := newFactory(l, server.Addr(), grpcpool.WithMinTLSVersion(tls.VersionTLS12))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := lax.NewConnection(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
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

// With this setting, the default of go.mod files before Go 1.23, crypto/tls leaves a
// pair's Leaf nil.
func TestAPairWithoutItsLeafParsedIsEnough(t *testing.T) {
	t.Setenv("GODEBUG", "x509keypairleaf=0")
	l := localhost(t)
	identity := identityOf(t, l.CA, l.Client)
	if identity.Certificate.Leaf != nil {
		t.Fatal("the setting has no effect")
	}
	files := writeFiles(t, l, inPlace)
	for name, construct := range map[string]func() (*grpcpool.Factory, error){
		"PEM": func() (*grpcpool.Factory, error) { return newFactory(l, "localhost:1") },
		"files": func() (*grpcpool.Factory, error) {
			return grpcpool.NewMutualTLSFactoryFromFiles(files.ca, files.cert, files.key, "localhost:1")
		},
		"source": func() (*grpcpool.Factory, error) {
			return grpcpool.NewMutualTLSFactory(nil, nil, nil, "localhost:1", 0, 0, nil,
				grpcpool.WithCertificateSource((&memory{identity: identity}).source))
		},
	} {
		f, err := construct()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if id := f.Identity(); id.Serial != serialOf(t, l.Client) {
			t.Errorf("%s: the identity is %+v", name, id)
		}
	}
}
