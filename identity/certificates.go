package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// certificates are those of a PEM text or a chain, in order.
type certificates struct {
	text   []byte              // what was read, with harmless mistakes corrected
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
// beside new ones during a change. Roots are alternatives, so one that cannot be parsed
// does not affect the others.
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

// readKey finds mistakes that tls.X509KeyPair would report less clearly. No part of the
// key goes into an error.
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
