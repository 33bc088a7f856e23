package grpcpool

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/keepalive"
)

// minKeepaliveTime is grpc-go's floor for client keepalive (gRFC A8).
const minKeepaliveTime = 10 * time.Second

// NewMutualTLSFactory returns a factory whose channels prove both ends by
// certificate: the server's must be signed by one in caCertPEM and valid for the
// host in serverAddress; the client shows clientCertPEM (leaf first, then any
// intermediates) and proves it with clientKeyPEM (PKCS #8, PKCS #1 or SEC 1, not
// encrypted). TLS 1.3 is the minimum (see WithMinTLSVersion) and the server must
// speak HTTP/2 (ALPN "h2", RFC 9113 section 3.2).
//
// serverAddress is "host:port" or any gRPC target. After keepaliveTime without
// activity on a connection with open streams the client sends an HTTP/2 PING,
// and closes the connection if nothing comes back within keepaliveTimeout; below
// 10 s keepaliveTime counts as 10 s, and a keepaliveTimeout of 0 or less counts
// as 20 s (gRFC A8). A nil ping is HealthPing.
//
// PEM that is empty, broken or does not belong together, a certificate that is
// expired, not yet valid or not for client authentication, and an address that
// can never work are errors here, which name the argument and the reason.
//
// No handshake resumes a TLS session: a resumed one would keep the identity of the
// handshake that began it, past the certificate's renewal. There is no way to skip
// the verification of the server. For certificates that are renewed while the
// program runs see NewMutualTLSFactoryFromFiles and WithCertificateSource.
func NewMutualTLSFactory(caCertPEM, clientCertPEM, clientKeyPEM []byte, serverAddress string,
	keepaliveTime, keepaliveTimeout time.Duration, ping PingFunc, opts ...FactoryOption,
) (*Factory, error) {
	cfg, err := newFactoryConfig(opts)
	if err != nil {
		return nil, err
	}
	if ping != nil {
		cfg.ping = ping
	}
	if cfg.keepalive == nil {
		cfg.keepalive = &keepalive.ClientParameters{Time: max(keepaliveTime, minKeepaliveTime), Timeout: max(keepaliveTimeout, 0)}
	}
	if source := cfg.tls.source; source != nil {
		if len(caCertPEM)+len(clientCertPEM)+len(clientKeyPEM) > 0 {
			return nil, errors.New("grpcpool: WithCertificateSource: the three PEM arguments must be nil, the identity comes from the source")
		}
		return newMutualTLS(serverAddress, loadFrom(source), cfg)
	}
	names := [3]string{"caCertPEM", "clientCertPEM", "clientKeyPEM"}
	identity, err := parseIdentity(caCertPEM, clientCertPEM, clientKeyPEM, names, time.Now())
	if err != nil {
		return nil, fmt.Errorf("grpcpool: %w", err)
	}
	fixed := func(context.Context, time.Duration) (Identity, error) { return identity, nil }
	return newMutualTLS(serverAddress, bounded[Identity]{call: fixed}, cfg)
}

// newMutualTLS is what the mutual TLS constructors have in common. identity is loaded
// at once, and by the rotation from then on.
func newMutualTLS(serverAddress string, identity bounded[Identity], cfg *factoryConfig) (*Factory, error) {
	r, err := newRotation(identity, serverAddress, cfg)
	if err != nil {
		return nil, err
	}
	cfg.rotation = r
	return newFactory(serverAddress, &rotatingCredentials{rotation: r, serverName: cfg.tls.serverName}, cfg)
}

// parseRoots wants at least one certificate that is valid now: bundles keep old
// roots beside new ones while they change over.
func parseRoots(data []byte, now time.Time) (*x509.CertPool, error) {
	certs, err := parseCertificates(data)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	var invalid error
	valid := false
	for _, c := range certs {
		pool.AddCert(c)
		if err := checkValidity(c, now); err != nil {
			invalid = err
			continue
		}
		valid = true
	}
	if !valid {
		return nil, invalid
	}
	return pool, nil
}

func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("is empty, want a PEM certificate")
	}
	var certs []*x509.Certificate
	var others []string
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			others = append(others, fmt.Sprintf("%q", block.Type))
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d cannot be parsed: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	switch begun := bytes.Count(data, []byte("-----BEGIN CERTIFICATE-----")); {
	case begun > len(certs):
		// pem.Decode passes over what it cannot read, which in a file that is
		// being written would be the last certificates.
		return nil, fmt.Errorf("begins %d certificates of which %d can be read: is it whole?", begun, len(certs))
	case len(certs) > 0:
		return certs, nil
	case len(others) > 0:
		return nil, fmt.Errorf("holds no certificate, only %s", strings.Join(others, ", "))
	default:
		return nil, errors.New(`is not PEM (no "-----BEGIN CERTIFICATE-----" block)`)
	}
}

func checkClientLeaf(leaf *x509.Certificate, now time.Time) error {
	if err := checkValidity(leaf, now); err != nil {
		return err
	}
	usage := leaf.ExtKeyUsage
	if len(usage)+len(leaf.UnknownExtKeyUsage) > 0 &&
		!slices.Contains(usage, x509.ExtKeyUsageClientAuth) && !slices.Contains(usage, x509.ExtKeyUsageAny) {
		return fmt.Errorf("certificate %q is not for client authentication (extended key usage, RFC 5280 section 4.2.1.12)", leaf.Subject)
	}
	return nil
}

func checkValidity(c *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(c.NotBefore):
		return fmt.Errorf("certificate %q is not valid before %s, and it is %s",
			c.Subject, c.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case now.After(c.NotAfter):
		return fmt.Errorf("certificate %q expired at %s, and it is %s",
			c.Subject, c.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	default:
		return nil
	}
}

// checkKeyPEM finds what tls.X509KeyPair would report less clearly. No part of
// the key goes into an error.
func checkKeyPEM(data []byte) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return errors.New("is empty, want a PEM private key")
	}
	found := false
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		found = true
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return errors.New("the private key is encrypted; decrypt it first")
		}
	}
	if !found {
		return errors.New(`is not PEM (no "-----BEGIN PRIVATE KEY-----" block)`)
	}
	return nil
}
