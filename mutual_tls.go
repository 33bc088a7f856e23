package grpcpool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/keepalive"

	"github.com/davidwartell/go-grpcpool/identity"
)

// minKeepaliveTime is grpc-go's floor for client keepalive (gRFC A8).
const minKeepaliveTime = 10 * time.Second

// NewMutualTLSFactory returns a factory whose channels use mutual TLS with one identity
// that does not change: identity.FromPEM says what the three PEM texts must hold. For
// certificates that are renewed while the program runs use NewMutualTLSFactoryFromFiles;
// for pins, revocation lists, TLS 1.2 and other sources use NewIdentityFactory.
//
// serverAddress is "host:port" or any gRPC target. The server's certificate must be valid
// for its host (see WithServerName). After keepaliveTime without activity on a connection
// with open streams the client sends an HTTP/2 PING, and closes the connection if there is
// no answer within keepaliveTimeout. A keepaliveTime below 10 s counts as 10 s, and a
// keepaliveTimeout of 0 or less counts as 20 s (gRFC A8). WithKeepalive replaces both. A
// nil ping is that of WithPing or WithHealthCheck, and otherwise HealthPing.
//
// PEM that cannot be used and an address that can never work are errors here, which name
// the argument and the reason.
func NewMutualTLSFactory(caCertPEM, clientCertPEM, clientKeyPEM []byte, serverAddress string,
	keepaliveTime, keepaliveTimeout time.Duration, ping PingFunc, opts ...FactoryOption,
) (*Factory, error) {
	if ping != nil {
		opts = append(slices.Clone(opts), WithPing(ping))
	}
	cfg, err := newFactoryConfig(opts)
	if err != nil {
		return nil, err
	}
	if cfg.keepalive == nil {
		cfg.keepalive = &keepalive.ClientParameters{Time: max(keepaliveTime, minKeepaliveTime), Timeout: max(keepaliveTimeout, 0)}
	}
	provider, err := identity.FromPEM(caCertPEM, clientCertPEM, clientKeyPEM, cfg.identityLogger(serverAddress))
	return newOwnIdentityFactory(serverAddress, provider, err, cfg)
}

// NewMutualTLSFactoryFromFiles is NewMutualTLSFactory for certificates that are renewed
// in their files: every handshake shows the newest, and within 30 s all connections are
// replaced by ones that were made under it, without failing calls. identity.FromFiles says
// what the files must hold and how they are read. Keepalive is off unless WithKeepalive
// turns it on, and WithPing or WithHealthCheck replaces HealthPing.
func NewMutualTLSFactoryFromFiles(caFile, certFile, keyFile, serverAddress string, opts ...FactoryOption) (*Factory, error) {
	cfg, err := newFactoryConfig(opts)
	if err != nil {
		return nil, err
	}
	provider, err := identity.FromFiles(caFile, certFile, keyFile, cfg.identityLogger(serverAddress))
	return newOwnIdentityFactory(serverAddress, provider, err, cfg)
}

// NewIdentityFactory returns a factory whose channels use the provider's identity, as
// channels made with its DialOption do. Any number of factories may share one provider.
// A nil or zero provider is an error. serverAddress is as in NewFactory. Keepalive is off
// unless WithKeepalive turns it on.
func NewIdentityFactory(serverAddress string, provider *identity.Provider, opts ...FactoryOption) (*Factory, error) {
	if provider.Info().Generation == 0 {
		return nil, errors.New("grpcpool: provider is nil or empty; make one with identity.FromPEM, FromFiles or FromSource")
	}
	cfg, err := newFactoryConfig(opts)
	if err != nil {
		return nil, err
	}
	f, err := newFactory(serverAddress, provider.Credentials(), cfg)
	if err != nil {
		return nil, err
	}
	f.provider = provider
	return f, nil
}

// newOwnIdentityFactory makes a factory that closes its provider. err is the provider's.
func newOwnIdentityFactory(serverAddress string, provider *identity.Provider, err error, cfg *factoryConfig) (*Factory, error) {
	if err != nil {
		return nil, fmt.Errorf("grpcpool: %w", err)
	}
	f, err := newFactory(serverAddress, provider.Credentials(), cfg)
	if err != nil {
		return nil, err
	}
	f.provider, f.ownsProvider = provider, true
	return f, nil
}

// IdentityReporter is a ConnectionFactory that knows the identity of its channels. A pool
// whose factory is one shows it in its Stats. Factory is one.
type IdentityReporter interface {
	ConnectionFactory

	// Identity describes the identity that new connections show. It is the zero
	// identity.Info if the factory has none.
	Identity() identity.Info
}

var _ IdentityReporter = (*Factory)(nil)

// Identity describes the identity that new connections show. It is the zero
// identity.Info for a factory that was made with NewFactory.
func (f *Factory) Identity() identity.Info {
	if !f.made() || f.provider == nil {
		return identity.Info{}
	}
	return f.provider.Info()
}

// Reload checks for a new identity now; see identity.Provider.Reload. For a factory that
// was made with NewFactory it does nothing.
func (f *Factory) Reload(ctx context.Context) error {
	if !f.made() {
		return notMade()
	}
	if f.provider == nil {
		return nil
	}
	if err := f.provider.Reload(ctx); err != nil {
		return fmt.Errorf("grpcpool: %w", err)
	}
	return nil
}

// Close ends the watch for new certificates of NewMutualTLSFactory and
// NewMutualTLSFactoryFromFiles; see identity.Provider.Close. The provider of
// NewIdentityFactory is its caller's to close. Close does not close channels, and the
// factory can still make channels. There is no need to call it, and a pool does not: its
// factory may be in use elsewhere.
func (f *Factory) Close() error {
	if !f.made() || !f.ownsProvider {
		return nil
	}
	if err := f.provider.Close(); err != nil {
		return fmt.Errorf("grpcpool: %w", err)
	}
	return nil
}
