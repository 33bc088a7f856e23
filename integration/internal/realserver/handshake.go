// Package realserver runs servers from the operating system's packages for tests:
// each on loopback, on a port of its own, over mutual TLS, with its files in the
// test's temporary directory. None of the packages' own services is needed.
package realserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/identity"
)

// betweenHandshakes is how long AwaitHandshake pauses, and so about how much too
// late it may notice that a server serves.
const betweenHandshakes = 2 * time.Millisecond

// AwaitHandshake returns when a TLS handshake with addr has succeeded, and closed
// that connection again; or, when ctx ends, with the error of the last try.
func AwaitHandshake(ctx context.Context, addr string, cfg *tls.Config) error {
	tick := time.NewTicker(betweenHandshakes)
	defer tick.Stop()
	dialer := tls.Dialer{Config: cfg}
	for {
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("realserver: %s does not serve: %w (%w)", addr, err, context.Cause(ctx))
		}
	}
}

// ClientTLS is what a plain TLS client needs to be admitted.
func ClientTLS(certs *grpcpooltest.Certs) (*tls.Config, error) {
	pair, err := identity.ParseKeyPair(certs.Client.CertPEM, certs.Client.KeyPEM)
	if err != nil {
		return nil, fmt.Errorf("realserver: the client's certificate: %w", err)
	}
	roots, err := identity.ParseRoots(certs.CA.PEM)
	if err != nil {
		return nil, fmt.Errorf("realserver: the authority: %w", err)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		RootCAs:      roots,
		Certificates: []tls.Certificate{pair},
		NextProtos:   []string{"h2"},
	}, nil
}
