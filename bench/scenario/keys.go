package scenario

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"google.golang.org/grpc/credentials"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// keys are what both ends of mutual TLS need, in PEM, so that processes can hand them on.
type keys struct {
	CA             []byte
	Server, Client grpcpooltest.KeyPair
}

func newKeys() (*keys, error) {
	c, err := grpcpooltest.NewCerts()
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	return &keys{c.CA.PEM, c.Server, c.Client}, nil
}

func (k *keys) server() (credentials.TransportCredentials, error) {
	pair, roots, err := k.load(k.Server)
	if err != nil {
		return nil, err
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots,
	}), nil
}

// client is nil without keys.
func (k *keys) client() (credentials.TransportCredentials, error) {
	if k == nil {
		return nil, nil //nolint:nilnil // plaintext
	}
	pair, roots, err := k.load(k.Client)
	if err != nil {
		return nil, err
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: roots,
	}), nil
}

func (k *keys) load(own grpcpooltest.KeyPair) (tls.Certificate, *x509.CertPool, error) {
	pair, err := own.Certificate()
	if err != nil {
		return pair, nil, fmt.Errorf("keys: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(k.CA) {
		return pair, nil, errors.New("keys: the authority's certificate cannot be used")
	}
	return pair, roots, nil
}
