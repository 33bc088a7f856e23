package grpcpooltest

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

// CA is a certificate authority in memory. Its methods may be called concurrently.
type CA struct {
	// PEM is the authority's own certificate, for the roots of its peers.
	PEM []byte

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// CertRequest says what a certificate is for. The zero CertRequest is a client
// certificate that is valid from an hour ago until tomorrow.
type CertRequest struct {
	CommonName string             // default "client", or "server" if Hosts is set
	Hosts      []string           // DNS names and IP addresses; makes it a server certificate
	URIs       []*url.URL         // such as a SPIFFE ID
	NotBefore  time.Time          // default an hour ago
	NotAfter   time.Time          // default in 24 hours
	Usage      []x509.ExtKeyUsage // default ClientAuth, or ServerAuth if Hosts is set
	CRLs       []string           // URLs of the revocation lists that would name it
}

// KeyPair is a certificate and its key, both PEM.
type KeyPair struct {
	CertPEM, KeyPEM []byte
}

// Certificate is the pair for crypto/tls.
func (p KeyPair) Certificate() (tls.Certificate, error) {
	cert, err := tls.X509KeyPair(p.CertPEM, p.KeyPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("grpcpooltest: loading a certificate and its key: %w", err)
	}
	return cert, nil
}

var errNoAuthority = errors.New("grpcpooltest: the authority is not set; make one with NewCA or NewCerts")

// usable reports whether the authority was made by this package.
func (ca *CA) usable() error {
	if ca == nil || ca.cert == nil {
		return errNoAuthority
	}
	return nil
}

// NewCA makes an authority that is valid from an hour ago until tomorrow.
func NewCA(name string) (*CA, error) { return NewCAUntil(name, time.Now().Add(lifetime)) }

// NewCAUntil makes an authority that is valid from an hour ago until notAfter.
func NewCAUntil(name string, notAfter time.Time) (*CA, error) {
	return newAuthority(name, nil, time.Now().Add(-time.Hour), notAfter)
}

// newAuthority makes an authority that parent signs, or that signs itself if parent is nil.
func newAuthority(name string, parent *CA, notBefore, notAfter time.Time) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("grpcpooltest: making the key of %q: %w", name, err)
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
		return nil, fmt.Errorf("grpcpooltest: signing %q: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("grpcpooltest: reading back %q: %w", name, err)
	}
	return &CA{PEM: encodePEM("CERTIFICATE", der), cert: cert, key: key}, nil
}

// Intermediate makes an authority that is signed by this one. A peer needs its PEM
// behind each certificate that it issues.
func (ca *CA) Intermediate(name string) (*CA, error) {
	return ca.IntermediateBetween(name, time.Now().Add(-time.Hour), time.Now().Add(lifetime))
}

// IntermediateBetween is Intermediate with a validity that the caller chooses.
func (ca *CA) IntermediateBetween(name string, notBefore, notAfter time.Time) (*CA, error) {
	if err := ca.usable(); err != nil {
		return nil, err
	}
	return newAuthority(name, ca, notBefore, notAfter)
}

// RevocationList signs a list (RFC 5280 section 5) that revokes the certificates of
// the pairs, and returns it in PEM. nextUpdate is when the list is to be replaced.
func (ca *CA) RevocationList(nextUpdate time.Time, revoked ...KeyPair) ([]byte, error) {
	return ca.RevocationListWith(nil, nextUpdate, revoked...)
}

// RevocationListWith is RevocationList, but calls change, unless it is nil, with the
// list before it is signed.
func (ca *CA) RevocationListWith(change func(*x509.RevocationList), nextUpdate time.Time, revoked ...KeyPair) ([]byte, error) {
	if err := ca.usable(); err != nil {
		return nil, err
	}
	number, err := serialNumber()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.RevocationList{Number: number, ThisUpdate: now.Add(-2 * time.Hour), NextUpdate: nextUpdate}
	for _, pair := range revoked {
		block, _ := pem.Decode(pair.CertPEM)
		if block == nil {
			return nil, errors.New("grpcpooltest: a pair to revoke has no certificate in PEM")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("grpcpooltest: reading a certificate to revoke: %w", err)
		}
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: cert.SerialNumber, RevocationTime: now.Add(-time.Minute)})
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, ca.cert, ca.key)
	if err != nil {
		return nil, fmt.Errorf("grpcpooltest: signing the revocation list of %q: %w", ca.cert.Subject, err)
	}
	return encodePEM("X509 CRL", der), nil
}

// Issue signs a certificate with a fresh P-256 key.
func (ca *CA) Issue(r CertRequest) (KeyPair, error) {
	if err := ca.usable(); err != nil {
		return KeyPair{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return KeyPair{}, fmt.Errorf("grpcpooltest: making a key: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return KeyPair{}, err
	}
	template := r.template(time.Now())
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		return KeyPair{}, fmt.Errorf("grpcpooltest: signing %q: %w", template.Subject.CommonName, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return KeyPair{}, fmt.Errorf("grpcpooltest: encoding a key: %w", err)
	}
	return KeyPair{CertPEM: encodePEM("CERTIFICATE", der), KeyPEM: encodePEM("PRIVATE KEY", keyDER)}, nil
}

func (r CertRequest) template(now time.Time) *x509.Certificate {
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
func (ca *CA) ServerConfig(server KeyPair) (*tls.Config, error) {
	if err := ca.usable(); err != nil {
		return nil, err
	}
	cert, err := server.Certificate()
	if err != nil {
		return nil, err
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

func serialNumber() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("grpcpooltest: making a serial number: %w", err)
	}
	return n, nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
