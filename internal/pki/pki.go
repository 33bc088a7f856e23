// Package pki mints short-lived certificate authorities and certificates in
// memory, for the demo and for tests. It is not a place to get certificates for
// production from: keys live in the process and are lost with it.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

// lifetime is how long a certificate is valid unless the request says otherwise.
const lifetime = 24 * time.Hour

// CA is a certificate authority. Its methods may be called concurrently.
type CA struct {
	// PEM is the authority's own certificate, what a peer puts among its roots.
	PEM []byte

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Request says what a certificate is for. The zero Request is a client
// certificate that is valid from an hour ago until tomorrow.
type Request struct {
	CommonName string             // default "client", or "server" when Hosts is set
	Hosts      []string           // DNS names and IP addresses; makes it a server certificate
	URIs       []*url.URL         // such as a SPIFFE ID
	NotBefore  time.Time          // default an hour ago
	NotAfter   time.Time          // default in 24 hours
	Usage      []x509.ExtKeyUsage // default ClientAuth, or ServerAuth when Hosts is set
	CRLs       []string           // URLs of the revocation lists that would name it
}

// Pair is a certificate and its key, both PEM.
type Pair struct {
	CertPEM, KeyPEM []byte
}

// NewCA mints an authority that is valid from an hour ago until tomorrow.
func NewCA(name string) (*CA, error) { return NewCAUntil(name, time.Now().Add(lifetime)) }

// NewCAUntil mints an authority that is valid from an hour ago until notAfter.
func NewCAUntil(name string, notAfter time.Time) (*CA, error) {
	return newAuthority(name, nil, time.Now().Add(-time.Hour), notAfter)
}

// newAuthority mints an authority that parent has signed, or, if that is nil, itself.
func newAuthority(name string, parent *CA, notBefore, notAfter time.Time) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("pki: making the key of %q: %w", name, err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	issuer, signer := template, key
	if parent != nil {
		issuer, signer = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, signer)
	if err != nil {
		return nil, fmt.Errorf("pki: signing %q: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("pki: reading back %q: %w", name, err)
	}
	return &CA{PEM: encode("CERTIFICATE", der), cert: cert, key: key}, nil
}

// Intermediate mints an authority that is signed by this one. Its PEM goes behind
// the certificates that it issues.
func (ca *CA) Intermediate(name string) (*CA, error) {
	return ca.IntermediateBetween(name, time.Now().Add(-time.Hour), time.Now().Add(lifetime))
}

// IntermediateBetween is Intermediate with a validity of its own.
func (ca *CA) IntermediateBetween(name string, notBefore, notAfter time.Time) (*CA, error) {
	return newAuthority(name, ca, notBefore, notAfter)
}

// RevocationList signs a list (RFC 5280 section 5) that revokes the certificates of
// the pairs, and returns it in PEM. The next one is promised for nextUpdate.
func (ca *CA) RevocationList(nextUpdate time.Time, revoked ...Pair) ([]byte, error) {
	return ca.RevocationListWith(func(*x509.RevocationList) {}, nextUpdate, revoked...)
}

// RevocationListWith is RevocationList with what change makes of the list before it is
// signed.
func (ca *CA) RevocationListWith(change func(*x509.RevocationList), nextUpdate time.Time, revoked ...Pair) ([]byte, error) {
	number, err := serialNumber()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.RevocationList{Number: number, ThisUpdate: now.Add(-2 * time.Hour), NextUpdate: nextUpdate}
	for _, pair := range revoked {
		block, _ := pem.Decode(pair.CertPEM)
		if block == nil {
			return nil, errors.New("pki: a pair to revoke has no certificate in PEM")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("pki: reading a certificate to revoke: %w", err)
		}
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: cert.SerialNumber, RevocationTime: now.Add(-time.Minute)})
	}
	change(template)
	der, err := x509.CreateRevocationList(rand.Reader, template, ca.cert, ca.key)
	if err != nil {
		return nil, fmt.Errorf("pki: signing the revocation list of %q: %w", ca.cert.Subject, err)
	}
	return encode("X509 CRL", der), nil
}

// Issue signs a certificate with a fresh P-256 key.
func (ca *CA) Issue(r Request) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("pki: making a key: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return Pair{}, err
	}
	template := r.template(time.Now())
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		return Pair{}, fmt.Errorf("pki: signing %q: %w", template.Subject.CommonName, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("pki: encoding a key: %w", err)
	}
	return Pair{CertPEM: encode("CERTIFICATE", der), KeyPEM: encode("PRIVATE KEY", keyDER)}, nil
}

func (r Request) template(now time.Time) *x509.Certificate {
	name, usage := "client", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(r.Hosts) > 0 {
		name, usage = "server", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	if r.CommonName != "" {
		name = r.CommonName
	}
	if r.Usage != nil {
		usage = r.Usage
	}
	t := &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		NotBefore:   now.Add(-time.Hour),
		NotAfter:    now.Add(lifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: usage,
		URIs:        r.URIs,

		CRLDistributionPoints: r.CRLs,
	}
	if !r.NotBefore.IsZero() {
		t.NotBefore = r.NotBefore
	}
	if !r.NotAfter.IsZero() {
		t.NotAfter = r.NotAfter
	}
	for _, h := range r.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return t
}

// ServerConfig is a TLS 1.3 server configuration that demands a client
// certificate signed by this authority.
func (ca *CA) ServerConfig(server Pair) (*tls.Config, error) {
	cert, err := tls.X509KeyPair(server.CertPEM, server.KeyPEM)
	if err != nil {
		return nil, fmt.Errorf("pki: loading the server's pair: %w", err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(ca.cert)
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    clients,
	}, nil
}

// Localhost is an authority with a server certificate for localhost (by name
// and by loopback address) and a client certificate: what a test needs.
type Localhost struct {
	CA             *CA
	Server, Client Pair
}

// NewLocalhost mints a Localhost.
func NewLocalhost() (*Localhost, error) {
	ca, err := NewCA("go-grpcpool local CA")
	if err != nil {
		return nil, err
	}
	server, err := ca.Issue(Request{Hosts: []string{"localhost", "127.0.0.1", "::1"}})
	if err != nil {
		return nil, err
	}
	client, err := ca.Issue(Request{})
	if err != nil {
		return nil, err
	}
	return &Localhost{CA: ca, Server: server, Client: client}, nil
}

func serialNumber() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("pki: making a serial number: %w", err)
	}
	return n, nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
