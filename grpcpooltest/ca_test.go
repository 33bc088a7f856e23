package grpcpooltest_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log"
	"testing"
	"testing/synctest"
	"time"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

func ExampleCA_Issue() {
	ca, err := grpcpooltest.NewCA("example CA")
	if err != nil {
		log.Panic(err)
	}
	pair, err := ca.Issue(grpcpooltest.CertRequest{CommonName: "billing"})
	if err != nil {
		log.Panic(err)
	}
	block, _ := pem.Decode(pair.CertPEM)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(cert.Subject, "by", cert.Issuer)
	// Output: CN=billing by CN=example CA
}

// Certificates are minted on the clock of the bubble they are used in.
func TestCertificatesAreValidInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := grpcpooltest.NewCerts()
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(l.Server.CertPEM, l.Server.KeyPEM)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(l.CA.PEM)
		for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: time.Now()}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestARequestedValidityAndUsageAreKept(t *testing.T) {
	ca, err := grpcpooltest.NewCA("test CA")
	if err != nil {
		t.Fatal(err)
	}
	from, to := time.Now().Add(-3*time.Hour).UTC().Truncate(time.Second), time.Now().Add(-2*time.Hour).UTC().Truncate(time.Second)
	pair, err := ca.Issue(grpcpooltest.CertRequest{NotBefore: from, NotAfter: to, Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	leaf := loaded.Leaf
	if !leaf.NotBefore.Equal(from) || !leaf.NotAfter.Equal(to) || len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
		t.Errorf("got %v to %v for %v", leaf.NotBefore, leaf.NotAfter, leaf.ExtKeyUsage)
	}
}

func TestAnIntermediateAndARevocationListAreSignedByTheirAuthority(t *testing.T) {
	root, err := grpcpooltest.NewCA("root")
	if err != nil {
		t.Fatal(err)
	}
	intermediate, err := root.Intermediate("intermediate")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := intermediate.Issue(grpcpooltest.CertRequest{})
	if err != nil {
		t.Fatal(err)
	}
	rootCert, middle, leaf := parse(t, root.PEM), parse(t, intermediate.PEM), parse(t, pair.CertPEM)
	if err := middle.CheckSignatureFrom(rootCert); err != nil {
		t.Error(err)
	}
	if err := leaf.CheckSignatureFrom(middle); err != nil {
		t.Error(err)
	}
	data, err := intermediate.RevocationList(time.Now().Add(time.Hour), pair)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	list, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(middle); err != nil {
		t.Error(err)
	}
	if e := list.RevokedCertificateEntries; len(e) != 1 || e[0].SerialNumber.Cmp(leaf.SerialNumber) != 0 {
		t.Errorf("revoked are %v, want the serial number %v", e, leaf.SerialNumber)
	}
}

func parse(t *testing.T, data []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(data)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
