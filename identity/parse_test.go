package identity_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/identity"
)

// joined is what cat makes of files, of which none ends with a line break.
func joined(texts ...[]byte) []byte {
	trimmed := make([][]byte, len(texts))
	for i, text := range texts {
		trimmed[i] = bytes.TrimSpace(text)
	}
	return slices.Concat(trimmed...)
}

// What FromPEM accepts, the two functions accept, and they return all of it.
func TestRootsAndKeyPairsAreReadFromPEMAsPeopleMakeIt(t *testing.T) {
	one, two := newCA(t, "one"), newCA(t, "two")
	issuer := must(one.Intermediate("intermediate"))
	server := issue(t, issuer, grpcpooltest.CertRequest{Hosts: []string{"localhost"}})
	roots := x509.NewCertPool()
	for _, ca := range []*grpcpooltest.CA{one, two} {
		roots.AddCert(must(x509.ParseCertificate(derOf(ca.PEM))))
	}
	chain := [][]byte{derOf(server.CertPEM), derOf(issuer.PEM)}

	for name, odd := range map[string]func(texts ...[]byte) []byte{
		"as written":           slices.Concat[[]byte],
		"byte order mark":      func(texts ...[]byte) []byte { return bom(slices.Concat(texts...)) },
		"a mark in each":       func(texts ...[]byte) []byte { return bom(slices.Concat(slices.Insert(texts, 1, bom(nil))...)) },
		"line ends of Windows": func(texts ...[]byte) []byte { return withLineEnds(slices.Concat(texts...), "\r\n") },
		"line ends of old":     func(texts ...[]byte) []byte { return withLineEnds(slices.Concat(texts...), "\r") },
		"indented": func(texts ...[]byte) []byte {
			return slices.Concat([]byte("    "), withLineEnds(slices.Concat(texts...), "\n    "))
		},
		"no line break between": joined,
		"all at once": func(texts ...[]byte) []byte {
			return bom(slices.Concat([]byte("\t"), withLineEnds(joined(texts...), "\r\n\t")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := identity.ParseRoots(odd(one.PEM, two.PEM))
			if err != nil || !got.Equal(roots) {
				t.Errorf("ParseRoots: %v, or other roots than in the text", err)
			}
			certs, both := odd(server.CertPEM, issuer.PEM), odd(server.CertPEM, issuer.PEM, server.KeyPEM)
			for _, texts := range [][2][]byte{{certs, odd(server.KeyPEM)}, {both, both}} {
				pair, err := identity.ParseKeyPair(texts[0], texts[1])
				if err != nil {
					t.Fatalf("ParseKeyPair: %v", err)
				}
				if diff := cmp.Diff(chain, pair.Certificate); diff != "" || pair.Leaf == nil || pair.PrivateKey == nil {
					t.Errorf("the chain is not that of the text (-want +got):\n%s, or leaf %v or key are missing", diff, pair.Leaf)
				}
			}
		})
	}
}

// A server's certificate is not for client authentication, and servers start with one that
// is renewed later.
func TestAKeyPairMayBeAServersAndExpired(t *testing.T) {
	ca := newCA(t, "ca")
	now := time.Now()
	for name, r := range map[string]grpcpooltest.CertRequest{
		"server":        {Hosts: []string{"localhost"}},
		"expired":       {NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)},
		"not yet valid": {NotBefore: now.Add(time.Hour), NotAfter: now.Add(2 * time.Hour)},
	} {
		pair := issue(t, ca, r)
		if _, err := identity.ParseKeyPair(pair.CertPEM, pair.KeyPEM); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestARootThatCannotBeUsedSparesTheOthers(t *testing.T) {
	ca := newCA(t, "ca")
	now := time.Now()
	expired := issue(t, ca, grpcpooltest.CertRequest{CommonName: "expired", NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)})
	for name, text := range map[string][]byte{
		"not parsed by Go": slices.Concat(negativeSerial(t), ca.PEM),
		"expired":          slices.Concat(expired.CertPEM, ca.PEM),
	} {
		if _, err := identity.ParseRoots(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := identity.ParseRoots(expired.CertPEM)
	wantError(t, err, `identity: caPEM: certificate "CN=expired" expired at `)
	_, err = identity.ParseRoots(negativeSerial(t))
	wantError(t, err, "identity: caPEM: no certificate can be parsed", "CN=negative")
}

func TestAMistakeInRootsOrAKeyPairIsNamed(t *testing.T) {
	l := localhost(t)
	ca, cert, key := l.CA.PEM, l.Server.CertPEM, l.Server.KeyPEM
	for name, test := range map[string]struct {
		ca   []byte
		want []string
	}{
		"empty":    {nil, []string{"caPEM: is empty, want a PEM certificate"}},
		"UTF-16":   {utf16LE(ca), []string{"caPEM: is UTF-16"}},
		"cut off":  {slices.Concat(ca, cutOff(ca)), []string{"caPEM: has 2 certificates of which 1 can be read", "is the file complete?"}},
		"a key":    {key, []string{`caPEM: holds no certificate, only "PRIVATE KEY"`}},
		"DER":      {derOf(ca), []string{"caPEM: is a certificate in DER", "openssl x509"}},
		"anything": {[]byte("garbage"), []string{"caPEM: is not PEM"}},
	} {
		_, err := identity.ParseRoots(test.ca)
		wantOneLine(t, "roots, "+name, err, test.want)
	}
	for name, test := range map[string]struct {
		cert, key []byte
		want      []string
	}{
		"no certificate":    {nil, key, []string{"certPEM: is empty, want a PEM certificate"}},
		"no key":            {cert, nil, []string{"keyPEM: is empty, want a PEM private key; want the private key of certPEM"}},
		"swapped":           {key, cert, []string{"certPEM: ", "keyPEM holds a certificate: are the two swapped?"}},
		"the key of others": {cert, l.Client.KeyPEM, []string{"keyPEM: cannot be used with certPEM"}},
		"leaf not first":    {slices.Concat(ca, cert), key, []string{`certPEM: the private key in keyPEM does not match certificate 1`, "leaf first"}},
		"encrypted":         {cert, encryptedKey, []string{"keyPEM: the private key is encrypted", "openssl pkey"}},
		"not parsed by Go":  {negativeSerial(t), key, []string{"certPEM: cannot be parsed", "CN=negative"}},
		"base64 of it":      {cert, []byte(base64.StdEncoding.EncodeToString(key)), []string{"keyPEM: is the base64 of PEM"}},
	} {
		pair, err := identity.ParseKeyPair(test.cert, test.key)
		wantOneLine(t, "pair, "+name, err, test.want)
		if pair.Certificate != nil || pair.PrivateKey != nil {
			t.Errorf("%s: there is a pair beside the error", name)
		}
		if err != nil && len(test.key) > 100 && strings.Contains(err.Error(), string(test.key[60:100])) {
			t.Errorf("%s: the error shows the key", name)
		}
	}
}

func wantOneLine(t *testing.T, name string, err error, parts []string) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		wantError(t, err, parts...)
		if err != nil && (!strings.HasPrefix(err.Error(), "identity: ") || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%q is not one line that begins with the package", err)
		}
	})
}
