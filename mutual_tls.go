package grpcpool

import (
	"context"
	"crypto/x509"
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
// can never work are errors here, which name the argument and the reason. Byte order
// marks, the line ends of any system, indentation, text between the blocks and a line
// break that is missing between two of them do no harm. A root that Go's crypto/x509
// cannot parse is left out as long as there is another: it is logged at Warn, and
// stands in Identity's Unreadable.
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
	fixed := func(context.Context, time.Duration) (material, error) { return identity, nil }
	return newMutualTLS(serverAddress, bounded[material]{call: fixed}, cfg)
}

// newMutualTLS is what the mutual TLS constructors have in common. identity is loaded
// at once, and by the rotation from then on.
func newMutualTLS(serverAddress string, identity bounded[material], cfg *factoryConfig) (*Factory, error) {
	r, err := newRotation(identity, serverAddress, cfg)
	if err != nil {
		return nil, err
	}
	cfg.rotation = r
	return newFactory(serverAddress, &rotatingCredentials{rotation: r, serverName: cfg.tls.serverName}, cfg)
}

// certificates are those of a PEM text or a chain, in their order.
type certificates struct {
	text   []byte              // what was read, put right
	parsed []*x509.Certificate // nil in the place of what crypto/x509 cannot parse
	odd    unreadable
}

func (c *certificates) add(der []byte) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		c.odd = c.odd.and(len(c.parsed)+1, der, err)
	}
	c.parsed = append(c.parsed, cert)
}

func parseCertificates(data []byte) (certificates, error) {
	read, err := readPEM(data, certificateKind)
	if err != nil {
		return certificates{}, err
	}
	c := certificates{text: read.text}
	for _, block := range read.blocks {
		if certificateKind.is(block.Type) {
			c.add(block.Bytes)
		}
	}
	return c, nil
}

// parseRoots wants at least one certificate that is valid now: bundles keep old roots
// beside new ones while they change over. Roots are alternatives, so one that cannot
// be parsed takes nothing from the others.
func parseRoots(data []byte, now time.Time) (*x509.CertPool, certificates, error) {
	roots, err := parseCertificates(data)
	if err != nil {
		return nil, roots, err
	}
	pool := x509.NewCertPool()
	var invalid error
	valid := false
	for _, c := range roots.parsed {
		if c == nil {
			continue
		}
		pool.AddCert(c)
		if err := checkValidity(c, now); err != nil {
			invalid = err
			continue
		}
		valid = true
	}
	switch {
	case valid:
		return pool, roots, nil
	case invalid != nil:
		return nil, roots, invalid
	default:
		return nil, roots, errors.New(roots.odd.describe("no certificate can be parsed"))
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

// readKey finds what tls.X509KeyPair would report less clearly. No part of the key
// goes into an error.
func readKey(data []byte) ([]byte, error) {
	read, err := readPEM(data, privateKeyKind)
	if err != nil {
		return nil, err
	}
	for _, block := range read.blocks {
		switch {
		case !privateKeyKind.is(block.Type):
			continue // EC PARAMETERS, certificates
		case block.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return nil, errors.New("the private key is encrypted; decrypt it first (openssl pkey -in FILE)")
		case block.Type == "OPENSSH PRIVATE KEY":
			return nil, errors.New("the private key is in OpenSSH's own format; convert it first (ssh-keygen -p -m PKCS8 -f FILE)")
		}
		break // the first is used
	}
	return read.text, nil
}
