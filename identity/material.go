package identity

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// material is an identity that has been checked, and what the check found.
type material struct {
	Identity

	chain      []*x509.Certificate // the client's, leaf first; nil in place of what crypto/x509 cannot parse
	unreadable string              // names those, and the roots that are left out; "" if there are none
}

// parseIdentity makes an identity of three PEM texts, or says what is wrong with them.
// names are what errors call them.
func parseIdentity(caPEM, certPEM, keyPEM []byte, names [3]string, now time.Time) (material, error) {
	pool, roots, err := parseRoots(caPEM, now)
	if err != nil {
		return material{}, fmt.Errorf("%s: %w", names[0], err)
	}
	pair, chain, err := parsePair(certPEM, keyPEM, roots, names)
	if err != nil {
		return material{}, err
	}
	if err := checkClientLeaf(pair.Leaf, now); err != nil {
		return material{}, fmt.Errorf("%s: %w", names[1], err)
	}
	return material{
		Identity:   Identity{Certificate: pair, Roots: pool},
		chain:      chain.parsed,
		unreadable: join(roots.odd.describe(names[0]+": ignored"), chain.odd.describe(names[1]+": still sent to servers")),
	}, nil
}

// parsePair makes a certificate with its key of two PEM texts. It returns the chain too,
// leaf first. roots are those of names[0]: the certificate may have been put there.
func parsePair(certPEM, keyPEM []byte, roots certificates, names [3]string) (tls.Certificate, certificates, error) {
	none := tls.Certificate{}
	chain, err := parseCertificates(certPEM)
	if err != nil {
		return none, chain, fmt.Errorf("%s: %w%s", names[1], err, ifSwapped(certPEM, keyPEM, names))
	}
	leaf := chain.parsed[0]
	if leaf == nil {
		return none, chain, fmt.Errorf("%s: cannot be parsed: %s", names[1], chain.odd[0])
	}
	key, err := readKey(keyPEM)
	switch {
	case err != nil && len(markers(keyPEM, privateKeyKind)) == 0:
		return none, chain, fmt.Errorf("%s: %w; want the private key of %s", names[2], err, names[1])
	case err != nil:
		return none, chain, fmt.Errorf("%s: %w", names[2], err)
	}
	pair, err := tls.X509KeyPair(chain.text, key)
	if err != nil {
		return none, chain, wrongKey(err, key, chain, roots, names)
	}
	pair.Leaf = leaf // crypto/tls sets it unless GODEBUG has x509keypairleaf=0
	return pair, chain, nil
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// ifSwapped is what an error adds when a certificate and a key are swapped.
func ifSwapped(certPEM, keyPEM []byte, names [3]string) string {
	_, noKey := readPEM(certPEM, privateKeyKind)
	_, noCert := readPEM(keyPEM, certificateKind)
	if noKey != nil || noCert != nil {
		return ""
	}
	return fmt.Sprintf(", and %s holds a certificate: are the two swapped?", names[2])
}

// wrongKey says which other certificate the key belongs to, if one is found.
func wrongKey(err error, key []byte, chain, roots certificates, names [3]string) error {
	belongsTo := func(c *x509.Certificate) bool {
		if c == nil {
			return false
		}
		_, err := tls.X509KeyPair(pem.EncodeToMemory(&pem.Block{Type: certificateKind.label, Bytes: c.Raw}), key)
		return err == nil
	}
	for i, c := range chain.parsed {
		if belongsTo(c) {
			return fmt.Errorf("%s: the private key in %s does not match certificate 1 (%q), but certificate %d (%q): "+
				"the order is wrong; put the key's own certificate before those of its issuers (leaf first)",
				names[1], names[2], chain.parsed[0].Subject, i+1, c.Subject)
		}
	}
	for i, c := range roots.parsed {
		if belongsTo(c) {
			return fmt.Errorf("%s: does not match the certificate %q in %s, but certificate %d (%q) in %s: are those two swapped?",
				names[2], chain.parsed[0].Subject, names[1], i+1, c.Subject, names[0])
		}
	}
	return fmt.Errorf("%s: cannot be used with %s: %w", names[2], names[1], err)
}

// check says why an identity from a source cannot be used.
func (id *Identity) check(now time.Time) (material, error) {
	cert := id.Certificate
	if len(cert.Certificate) == 0 {
		return material{}, errors.New("the identity has no client certificate")
	}
	var chain certificates
	for _, der := range cert.Certificate {
		chain.add(der)
	}
	leaf := chain.parsed[0]
	if leaf == nil {
		return material{}, fmt.Errorf("the client certificate cannot be parsed: %s", chain.odd[0])
	}
	if err := checkClientLeaf(leaf, now); err != nil {
		return material{}, fmt.Errorf("the client %w", err)
	}
	signer, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		return material{}, fmt.Errorf("the private key is a %T, want a crypto.Signer", cert.PrivateKey)
	}
	if public, ok := leaf.PublicKey.(interface {
		Equal(other crypto.PublicKey) bool
	}); !ok || !public.Equal(signer.Public()) {
		return material{}, fmt.Errorf("the private key does not match the client certificate %q", leaf.Subject)
	}
	if id.Roots == nil || id.Roots.Equal(x509.NewCertPool()) {
		return material{}, errors.New("the identity has no roots to verify the server with")
	}
	cert.Leaf = leaf
	return material{
		Identity:   Identity{Certificate: cert, Roots: id.Roots},
		chain:      chain.parsed,
		unreadable: chain.odd.describe("the client's chain: still sent to servers"),
	}, nil
}
