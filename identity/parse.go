package identity

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"
)

// ParseRoots returns the certificates of a PEM text as roots: for the Roots of an
// [Identity], or the RootCAs or ClientCAs of a tls.Config. It reads PEM as [FromPEM] does:
// byte order marks, the line ends of any system, indentation, text between the blocks and
// a missing line break between two blocks are accepted.
//
// A text that holds no certificate or is broken is an error, which says what is wrong and
// what to do. It is an error too if every certificate has expired or is not yet valid:
// nothing can be verified with them. A certificate that Go's crypto/x509 cannot parse is
// left out as long as there is a valid one.
func ParseRoots(caPEM []byte) (*x509.CertPool, error) {
	pool, _, err := parseRoots(caPEM, time.Now())
	if err != nil {
		return nil, fmt.Errorf("identity: caPEM: %w", err)
	}
	return pool, nil
}

// ParseKeyPair returns a certificate and its private key: for the Certificate of an
// [Identity], or the Certificates of a server's or a client's tls.Config. certPEM holds the
// certificate first, then any intermediates; keyPEM the key (PKCS #8, PKCS #1 or SEC 1, not
// encrypted). Both may be one text that holds both. It reads PEM as [ParseRoots] does.
//
// A text that is empty, broken or holds something else, and a key that does not belong to
// the certificate, are errors, which say what is wrong and what to do. They hold no part of
// the key. What the certificate may be used for and when it is valid are not checked:
// [FromPEM] and the other providers check both for their client.
func ParseKeyPair(certPEM, keyPEM []byte) (tls.Certificate, error) {
	pair, _, err := parsePair(certPEM, keyPEM, certificates{}, [3]string{"", "certPEM", "keyPEM"})
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("identity: %w", err)
	}
	return pair, nil
}
