package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/identity"
)

// Keepalive of the command's channels with a client certificate.
const (
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
)

// targetFlags are the flags that say how to connect to a server.
type targetFlags struct {
	cert, key, ca string // files
	authority     string
	plaintext     bool
	tls12         bool

	identityLog *slog.Logger // about certificates that are renewed; nil: discards
}

func (t *targetFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&t.cert, "cert", "", "PEM `file` with the client certificate, leaf first; requires --key and --ca")
	fs.StringVar(&t.key, "key", "", "PEM `file` with the private key of --cert, unencrypted")
	fs.StringVar(&t.ca, "ca", "", "PEM `file` with the CAs trusted to sign the server's certificate (default: the system's)")
	fs.StringVar(&t.authority, "authority", "", "`name` sent as the authority and expected in the server's certificate (default: the host)")
	fs.BoolVar(&t.plaintext, "plaintext", false, "connect without TLS")
	fs.BoolVar(&t.tls12, "tls12", false, "accept TLS 1.2; by default TLS 1.3 is required")
}

// check finds flags that cannot be combined.
func (t *targetFlags) check() error {
	switch {
	case t.plaintext && (t.cert != "" || t.key != "" || t.ca != "" || t.tls12):
		return errors.New("--plaintext cannot be combined with --cert, --key, --ca or --tls12")
	case (t.cert == "") != (t.key == ""):
		return errors.New("--cert and --key must be given together")
	case t.cert != "" && t.ca == "":
		return errors.New("--cert requires --ca")
	}
	return nil
}

// mutual reports whether there is a client certificate.
func (t *targetFlags) mutual() bool { return t.cert != "" }

func (t *targetFlags) minVersion() uint16 {
	if t.tls12 {
		return tls.VersionTLS12
	}
	return tls.VersionTLS13
}

// factory returns a factory of channels to target. It reads the files. With a client
// certificate it reads them again when they change.
func (t *targetFlags) factory(target string, opts ...grpcpool.FactoryOption) (*grpcpool.Factory, error) {
	if t.authority != "" {
		opts = append(opts, grpcpool.WithDialOptions(grpc.WithAuthority(t.authority)))
	}
	if t.plaintext {
		return grpcpool.NewFactory(target, insecure.NewCredentials(), opts...)
	}
	if !t.mutual() {
		config, err := t.tlsConfig()
		if err != nil {
			return nil, err
		}
		return grpcpool.NewFactory(target, credentials.NewTLS(config), opts...)
	}
	own := []identity.Option{identity.WithMinTLSVersion(t.minVersion())}
	if t.identityLog != nil {
		own = append(own, identity.WithLogger(t.identityLog))
	}
	provider, err := identity.FromFiles(t.ca, t.cert, t.key, own...)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	opts = append(opts, grpcpool.WithKeepalive(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}))
	return grpcpool.NewIdentityFactory(target, provider, opts...)
}

// tlsConfig returns the configuration for TLS without the library's factory.
func (t *targetFlags) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{MinVersion: t.minVersion()}
	if t.ca != "" {
		roots, err := readRoots(t.ca)
		if err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
		config.RootCAs = roots
	}
	if t.mutual() {
		pair, err := readKeyPair(t.cert, t.key)
		if err != nil {
			return nil, fmt.Errorf("--cert and --key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func readRoots(file string) (*x509.CertPool, error) {
	data, err := os.ReadFile(file) //nolint:gosec // the user chose the file
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	roots, err := identity.ParseRoots(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return roots, nil
}

func readKeyPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := os.ReadFile(certFile) //nolint:gosec // the user chose the file
	if err != nil {
		return tls.Certificate{}, err //nolint:wrapcheck // it names the file
	}
	key, err := os.ReadFile(keyFile) //nolint:gosec // the user chose the file
	if err != nil {
		return tls.Certificate{}, err //nolint:wrapcheck // it names the file
	}
	return identity.ParseKeyPair(cert, key) //nolint:wrapcheck // the callers name the flags
}
