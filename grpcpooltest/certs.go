package grpcpooltest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
)

// Certs is an authority with a server's certificate and a client's certificate.
type Certs struct {
	CA             *CA
	Server, Client KeyPair
}

// CertsOption configures NewCerts.
type CertsOption func(*certRequests)

type certRequests struct{ server, client CertRequest }

// WithServerCert asks for another certificate of the server. The default is one for
// localhost, by name and by loopback address.
func WithServerCert(r CertRequest) CertsOption { return func(c *certRequests) { c.server = r } }

// WithClientCert asks for another certificate of the client.
func WithClientCert(r CertRequest) CertsOption { return func(c *certRequests) { c.client = r } }

func localhostRequest() CertRequest {
	return CertRequest{Hosts: []string{"localhost", "127.0.0.1", "::1"}}
}

// NewCerts makes an authority, and issues a server's and a client's certificate. They
// are valid from an hour ago until tomorrow, by the clock of the bubble of
// testing/synctest that the caller is in.
func NewCerts(opts ...CertsOption) (*Certs, error) {
	ca, err := NewCA("go-grpcpool local CA")
	if err != nil {
		return nil, err
	}
	return ca.issueBoth(opts)
}

// Renew issues new certificates of the same authority, as NewCerts does.
func (c *Certs) Renew(opts ...CertsOption) (*Certs, error) { return c.authority().issueBoth(opts) }

// authority is nil if c is.
func (c *Certs) authority() *CA {
	if c == nil {
		return nil
	}
	return c.CA
}

func (ca *CA) issueBoth(opts []CertsOption) (*Certs, error) {
	want := certRequests{server: localhostRequest()}
	for _, opt := range opts {
		if opt == nil {
			return nil, errors.New("grpcpooltest: an option of the certificates is nil")
		}
		opt(&want)
	}
	server, err := ca.Issue(want.server)
	if err != nil {
		return nil, err
	}
	client, err := ca.Issue(want.client)
	if err != nil {
		return nil, err
	}
	return &Certs{CA: ca, Server: server, Client: client}, nil
}

// ServerTLS is a TLS 1.3 configuration of a server that demands a client certificate
// of the authority.
func (c *Certs) ServerTLS() (*tls.Config, error) {
	if err := c.authority().usable(); err != nil {
		return nil, err
	}
	return c.CA.ServerConfig(c.Server)
}

// ClientTLS is a TLS 1.3 configuration of a client that shows its certificate and
// trusts the authority.
func (c *Certs) ClientTLS() (*tls.Config, error) {
	if err := c.authority().usable(); err != nil {
		return nil, err
	}
	cert, err := c.Client.Certificate()
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.CA.cert)
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, RootCAs: roots}, nil
}

// clientCredentials are those of ClientTLS. Certificates that cannot be used fail each
// handshake.
func (c *Certs) clientCredentials() credentials.TransportCredentials {
	cfg, err := c.ClientTLS()
	if err != nil {
		cfg = &tls.Config{
			MinVersion:       tls.VersionTLS13,
			VerifyConnection: func(tls.ConnectionState) error { return err },
		}
	}
	return credentials.NewTLS(cfg)
}

// newServerCredentials shows the certificates that are current at each handshake.
func newServerCredentials(current *atomic.Pointer[Certs]) credentials.TransportCredentials {
	return credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			cfg, err := current.Load().ServerTLS()
			if err != nil {
				return nil, err
			}
			cfg.NextProtos = []string{"h2"}
			return cfg, nil
		},
	})
}

// Files are where a client finds its certificates.
type Files struct {
	CA, Cert, Key string // paths of PEM files
}

// WriteFiles writes what a client needs into dir: ca.pem, client.pem and
// client-key.pem. A file that exists is replaced by renaming, so a reader never sees
// a part of one.
func (c *Certs) WriteFiles(dir string) (Files, error) {
	if err := c.authority().usable(); err != nil {
		return Files{}, err
	}
	f := Files{
		CA:   filepath.Join(dir, "ca.pem"),
		Cert: filepath.Join(dir, "client.pem"),
		Key:  filepath.Join(dir, "client-key.pem"),
	}
	for _, file := range []struct {
		path string
		data []byte
	}{{f.CA, c.CA.PEM}, {f.Key, c.Client.KeyPEM}, {f.Cert, c.Client.CertPEM}} {
		if err := replaceFile(file.path, file.data); err != nil {
			return Files{}, fmt.Errorf("grpcpooltest: writing certificates: %w", err)
		}
	}
	return f, nil
}

func replaceFile(path string, data []byte) error {
	written := path + ".new"
	if err := os.WriteFile(written, data, 0o600); err != nil {
		return err
	}
	return os.Rename(written, path)
}
