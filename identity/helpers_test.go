package identity_test

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/internal/grpctest"
	"github.com/davidwartell/go-grpcpool/internal/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// factory is a factory whose Close closes its provider.
type factory struct {
	*grpcpool.Factory

	provider *identity.Provider
}

func (f *factory) Close() error { return f.provider.Close() }

type options []identity.Option

// newFactory is NewIdentityFactory for l's client.
func newFactory(l *pki.Localhost, address string, opts options, more ...grpcpool.FactoryOption) (*factory, error) {
	provider, err := identity.FromPEM(l.CA.PEM, l.Client.CertPEM, l.Client.KeyPEM, opts...)
	return ofProvider(provider, err, address, more)
}

func fromSource(source identity.Source, address string, opts options, more ...grpcpool.FactoryOption) (*factory, error) {
	provider, err := identity.FromSource(source, opts...)
	return ofProvider(provider, err, address, more)
}

func fromFiles(files *certFiles, address string, opts ...identity.Option) (*factory, error) {
	provider, err := identity.FromFiles(files.ca, files.cert, files.key, opts...)
	return ofProvider(provider, err, address, nil)
}

func ofProvider(provider *identity.Provider, err error, address string, opts []grpcpool.FactoryOption) (*factory, error) {
	if err != nil {
		return nil, err
	}
	opts = append(opts, grpcpool.WithKeepalive(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}))
	f, err := grpcpool.NewIdentityFactory(address, provider, opts...)
	if err != nil {
		return nil, err
	}
	return &factory{f, provider}, nil
}

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

func startTLS(t *testing.T, config *tls.Config) string {
	t.Helper()
	return grpctest.Start(t, grpctest.Config{TLS: config}).Addr()
}

func withH2(config *tls.Config) *tls.Config {
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	return config
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

func wantNotOK(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, grpcpool.ErrConnectionNotOK) {
		t.Errorf("%v is not ErrConnectionNotOK", err)
	}
	if code := status.Code(err); code != codes.Unavailable {
		t.Errorf("%v has code %v, want Unavailable", err, code)
	}
}
