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

// targetFlags say how to connect to a server.
type targetFlags struct {
	cert, key, ca string // files
	authority     string
	plaintext     bool
	tls12         bool

	identityLog *slog.Logger // about certificates that are renewed; nil: discards
}

func (t *targetFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&t.cert, "cert", "", "PEM `file` with the client certificate, leaf first; with --key and --ca: mutual TLS")
	fs.StringVar(&t.key, "key", "", "PEM `file` with the key of --cert, not encrypted")
	fs.StringVar(&t.ca, "ca", "", "PEM `file` with the certificate authorities of the server; without it the system's")
	fs.StringVar(&t.authority, "authority", "", "`name` to ask the server for and to find in its certificate, if it is not the target's host")
	fs.BoolVar(&t.plaintext, "plaintext", false, "no TLS at all")
	fs.BoolVar(&t.tls12, "tls12", false, "accept TLS 1.2 too; else 1.3 is wanted")
}

// check finds flags that do not go together.
func (t *targetFlags) check() error {
	switch {
	case t.plaintext && (t.cert != "" || t.key != "" || t.ca != "" || t.tls12):
		return errors.New("--plaintext is without TLS: leave out --cert, --key, --ca and --tls12")
	case (t.cert == "") != (t.key == ""):
		return errors.New("--cert and --key belong together")
	case t.cert != "" && t.ca == "":
		return errors.New("--cert wants --ca: who may the server be?")
	}
	return nil
}

// mutual reports whether a client certificate is shown.
func (t *targetFlags) mutual() bool { return t.cert != "" }

func (t *targetFlags) minVersion() uint16 {
	if t.tls12 {
		return tls.VersionTLS12
	}
	return tls.VersionTLS13
}

// factory makes channels to target. It reads the files, and the client's own again when
// they change.
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

// tlsConfig is for TLS without the library's factory.
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
		pair, err := tls.LoadX509KeyPair(t.cert, t.key)
		if err != nil {
			return nil, fmt.Errorf("--cert and --key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func readRoots(file string) (*x509.CertPool, error) {
	data, err := os.ReadFile(file) //nolint:gosec // the user names it
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return roots, nil
}
