package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"time"
)

// Identity is what a client proves itself with, and which authorities it trusts.
type Identity struct {
	// Certificate is the client's chain, leaf first, with its private key, which
	// may be any crypto.Signer: a key in a TPM or an HSM stays there. ParseKeyPair
	// reads one from PEM.
	Certificate tls.Certificate

	// Roots are the authorities that the server's certificate must lead to. nil is
	// an error; for the system's roots, set it to x509.SystemCertPool. ParseRoots
	// reads them from PEM.
	Roots *x509.CertPool
}

// Source returns the newest identity. It must return when ctx ends: until it has, it is
// not called again. A provider never calls it concurrently. It is called often (see
// [Provider]), so it should answer from memory or from a local agent, and return
// the same certificate until there is another: every new one replaces connections. A new
// PrivateKey for the same certificate replaces none, and signs from the next handshake on.
// What it has returned must not be changed.
type Source func(ctx context.Context) (Identity, error)

// Info describes the identity of a provider. It holds no secrets.
type Info struct {
	Generation uint64    `json:"generation"` // 1 for the first, one more for each that replaced it; 0: there is no identity
	Subject    string    `json:"subject"`    // of the client certificate, as RFC 2253 writes it
	Serial     string    `json:"serial"`     // hexadecimal
	NotBefore  time.Time `json:"notBefore"`
	NotAfter   time.Time `json:"notAfter"`
	Expiry     Expiry    `json:"expiry"`    // how close NotAfter is
	LoadedAt   time.Time `json:"loadedAt"`  // when this generation was taken
	CheckedAt  time.Time `json:"checkedAt"` // when the last check for a new one ended
	LastError  error     `json:"-"`         // why the newest is not in use; nil if it is

	// Unreadable names the certificates that Go's crypto/x509 cannot parse, and why: roots,
	// which are left out, and intermediates of the client, which are sent as they are.
	// It is "" if there are none.
	Unreadable string `json:"unreadable,omitempty"`
}

// Expiry is how close a certificate is to its end.
type Expiry string

// How close a certificate is to its end. A certificate that is renewed in time
// never gets beyond ExpiryFar: cert-manager and SPIRE renew at a third of the life
// left or more.
const (
	ExpiryFar    Expiry = "far"    // more than a third of its life is left
	ExpiryNear   Expiry = "near"   // a third or less is left
	ExpiryUrgent Expiry = "urgent" // a tenth or less is left
	ExpiryPassed Expiry = "passed" // it has expired
)

// expiryOf grades the time that is left of a certificate's life.
func expiryOf(notBefore, notAfter, now time.Time) Expiry {
	life, left := notAfter.Sub(notBefore), notAfter.Sub(now)
	switch {
	case left < 0:
		return ExpiryPassed
	case left <= life/10:
		return ExpiryUrgent
	case left <= life/3:
		return ExpiryNear
	default:
		return ExpiryFar
	}
}

// equal reports whether both look the same on the wire. The key is not compared: it
// belongs to the leaf, and how it is reached cannot be seen.
func (id *Identity) equal(other *Identity) bool {
	return slices.EqualFunc(id.Certificate.Certificate, other.Certificate.Certificate, bytes.Equal) &&
		id.Roots.Equal(other.Roots)
}
