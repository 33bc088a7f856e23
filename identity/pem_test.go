package identity_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf16"

	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/internal/pki"
)

// threePEM are the arguments of FromPEM.
type threePEM struct{ ca, cert, key []byte }

func (p threePEM) factory(address string) (*factory, error) {
	provider, err := identity.FromPEM(p.ca, p.cert, p.key)
	return ofProvider(provider, err, address, nil)
}

func bom(text []byte) []byte { return append([]byte("\ufeff"), text...) }

func withLineEnds(text []byte, ends string) []byte {
	return bytes.ReplaceAll(text, []byte("\n"), []byte(ends))
}

func derOf(text []byte) []byte {
	block, _ := pem.Decode(text)
	return block.Bytes
}

func asPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func keyOfPair(t testing.TB, pair pki.Pair) *ecdsa.PrivateKey {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(derOf(pair.KeyPEM))
	if err != nil {
		t.Fatal(err)
	}
	return key.(*ecdsa.PrivateKey)
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// utf16LE is what PowerShell's > writes.
func utf16LE(text []byte) []byte {
	units := utf16.Encode([]rune("\ufeff" + string(text)))
	out := make([]byte, 0, 2*len(units))
	for _, unit := range units {
		out = append(out, byte(unit), byte(unit>>8))
	}
	return out
}

// Files with harmless mistakes work.
func TestPEMAsPeopleMakeItWorks(t *testing.T) {
	l := localhost(t)
	address := startTLS(t, serverTLS(t, l.CA, l.Server))
	ca, cert, key := l.CA.PEM, l.Client.CertPEM, l.Client.KeyPEM
	sec1 := asPEM("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(keyOfPair(t, l.Client))))
	params := asPEM("EC PARAMETERS", must(asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7})))
	intermediate := must(l.CA.Intermediate("intermediate"))
	deep := issue(t, intermediate, pki.Request{})
	other := newCA(t, "another")
	joined := slices.Concat(bytes.TrimSpace(cert), key)

	for name, p := range map[string]threePEM{
		"byte order marks":                   {bom(ca), bom(cert), bom(key)},
		"files with marks put together":      {slices.Concat(bom(other.PEM), bom(ca)), cert, key},
		"line ends of Windows":               {withLineEnds(ca, "\r\n"), withLineEnds(cert, "\r\n"), withLineEnds(key, "\r\n")},
		"line ends of old":                   {withLineEnds(ca, "\r"), withLineEnds(cert, "\r"), withLineEnds(key, "\r")},
		"spaces at the ends of lines":        {withLineEnds(ca, "  \n"), withLineEnds(cert, "\t\n"), withLineEnds(key, " \n")},
		"empty lines around":                 {slices.Concat([]byte("\n\n"), ca, []byte("\n\n")), cert, slices.Concat([]byte("\n"), key)},
		"indented":                           {[]byte("  " + strings.ReplaceAll(string(ca), "\n", "\n  ")), withLineEnds(cert, "\n\t"), withLineEnds(key, "\n    ")},
		"no line break at the end":           {bytes.TrimSpace(ca), bytes.TrimSpace(cert), bytes.TrimSpace(key)},
		"no line break between two":          {slices.Concat(bytes.TrimSpace(other.PEM), ca), cert, key},
		"certificate and key in one":         {ca, joined, joined},
		"key and certificate in one":         {ca, slices.Concat(key, cert), slices.Concat(key, cert)},
		"text before, as openssl -text does": {slices.Concat([]byte("Certificate:\n    Data:\n        Version: 3 (0x2)\n"), ca), cert, slices.Concat([]byte("Bag Attributes\n    localKeyID: 01 \nKey Attributes: <No Attributes>\n"), key)},
		"EC PARAMETERS before the key":       {ca, cert, slices.Concat(params, sec1)},
		"an encrypted key behind the key":    {ca, cert, slices.Concat(key, encryptedKey)},
		"chain":                              {ca, slices.Concat(deep.CertPEM, intermediate.PEM), deep.KeyPEM},
		"chain, the issuers in disorder":     {ca, slices.Concat(deep.CertPEM, ca, intermediate.PEM), deep.KeyPEM},
		"a request beside the certificate":   {ca, slices.Concat(asPEM("CERTIFICATE REQUEST", []byte("x")), cert), key},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := p.factory(address)
			if err != nil {
				t.Fatal(err)
			}
			wantConnection(t, f)
		})
	}
}

// Other mistakes are named by the error, which says what to do.
func TestAMistakeInPEMIsNamed(t *testing.T) {
	l := localhost(t)
	ca, cert, key := l.CA.PEM, l.Client.CertPEM, l.Client.KeyPEM
	public := asPEM("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(keyOfPair(t, l.Client).Public())))
	request := asPEM("CERTIFICATE REQUEST", []byte("x"))
	pfx := must(asn1.Marshal(struct {
		Version  int
		AuthSafe struct{ Type asn1.ObjectIdentifier }
	}{3, struct{ Type asn1.ObjectIdentifier }{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}}}))
	damaged := bytes.Clone(cert)
	damaged[len(damaged)/2] = '*'
	issuer := issue(t, l.CA, pki.Request{CommonName: "issuer"})

	for name, test := range map[string]struct {
		threePEM

		want []string
	}{
		"UTF-16":                    {threePEM{utf16LE(ca), cert, key}, []string{"caCertPEM", "UTF-16"}},
		"UTF-16 without a mark":     {threePEM{ca, utf16LE(cert)[2:], key}, []string{"clientCertPEM", "UTF-16"}},
		"a mark and nothing else":   {threePEM{bom(nil), cert, key}, []string{"caCertPEM", "is empty"}},
		"written \\n":               {threePEM{ca, cert, withLineEnds(key, `\n`)}, []string{"clientKeyPEM", `the two characters \n`, "line breaks"}},
		"written \\n, quoted":       {threePEM{ca, slices.Concat([]byte(`"`), withLineEnds(cert, `\n`)), key}, []string{"clientCertPEM", `the two characters \n`}},
		"unquoted echo":             {threePEM{withLineEnds(ca, " "), cert, key}, []string{"caCertPEM", "line 1", "lost its line breaks"}},
		"quoted":                    {threePEM{slices.Concat([]byte(`"`), ca), cert, key}, []string{"caCertPEM", "line 1", "something before its BEGIN"}},
		"quoted mail":               {threePEM{ca, slices.Concat(cert, []byte("> "), withLineEnds(cert, "\n> ")), key}, []string{"clientCertPEM", "2 certificates of which 1 can be read", "something before its BEGIN"}},
		"cut off":                   {threePEM{ca, slices.Concat(cert, cutOff(cert)), key}, []string{"clientCertPEM", "2 certificates of which 1 can be read", "no END line: is the file complete?"}},
		"key cut off":               {threePEM{ca, cert, cutOff(key)}, []string{"clientKeyPEM", "1 private key of which 0 can be read", "is the file complete?"}},
		"damaged":                   {threePEM{ca, damaged, key}, []string{"clientCertPEM", "line 1", "is not base64"}},
		"base64 of it":              {threePEM{ca, []byte(base64.StdEncoding.EncodeToString(cert)), key}, []string{"clientCertPEM", "base64 of PEM", "decode it"}},
		"without BEGIN and END":     {threePEM{[]byte(base64.StdEncoding.EncodeToString(derOf(ca))), cert, key}, []string{"caCertPEM", "it has no lines"}},
		"a path":                    {threePEM{[]byte("/etc/ssl/ca.pem\n"), cert, key}, []string{"caCertPEM", "looks like a path", "NewMutualTLSFactoryFromFiles"}},
		"DER":                       {threePEM{ca, derOf(cert), key}, []string{"clientCertPEM", "a certificate in DER", "openssl x509 -inform der"}},
		"key in DER":                {threePEM{ca, cert, derOf(key)}, []string{"clientKeyPEM", "a private key in DER", "openssl pkey"}},
		"PKCS #12":                  {threePEM{ca, pfx, key}, []string{"clientCertPEM", "PKCS #12", "openssl pkcs12"}},
		"a Java key store":          {threePEM{ca, []byte{0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2}, key}, []string{"clientCertPEM", "Java key store"}},
		"PKCS #7":                   {threePEM{ca, asPEM("PKCS7", []byte("x")), key}, []string{"clientCertPEM", `only "PKCS7"`, "openssl pkcs7"}},
		"TRUSTED CERTIFICATE":       {threePEM{asPEM("TRUSTED CERTIFICATE", derOf(ca)), cert, key}, []string{"caCertPEM", `only "TRUSTED CERTIFICATE"`, "openssl x509"}},
		"a request":                 {threePEM{ca, request, key}, []string{"clientCertPEM", `only "CERTIFICATE REQUEST"`, "sign"}},
		"a public key":              {threePEM{ca, cert, public}, []string{"clientKeyPEM", `only "PUBLIC KEY"`, "not enough"}},
		"certificate and key":       {threePEM{ca, key, cert}, []string{"clientCertPEM", "clientKeyPEM holds a certificate", "swapped"}},
		"CA and certificate":        {threePEM{cert, ca, key}, []string{"clientKeyPEM", `"CN=client"`, "caCertPEM", "swapped"}},
		"leaf not first":            {threePEM{ca, slices.Concat(issuer.CertPEM, cert), key}, []string{"clientCertPEM", `certificate 1 ("CN=issuer")`, `certificate 2 ("CN=client")`, "leaf first"}},
		"encrypted key":             {threePEM{ca, cert, encryptedKey}, []string{"clientKeyPEM", "encrypted", "openssl pkey"}},
		"encrypted key, old way":    {threePEM{ca, cert, oldEncryptedKey}, []string{"clientKeyPEM", "encrypted"}},
		"OpenSSH's key":             {threePEM{ca, cert, asPEM("OPENSSH PRIVATE KEY", []byte("x"))}, []string{"clientKeyPEM", "OpenSSH", "ssh-keygen"}},
		"certificates without keys": {threePEM{ca, cert, cert}, []string{"clientKeyPEM", `holds no private key, only "CERTIFICATE"`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := test.factory("localhost:1")
			wantError(t, err, append(test.want, "identity: ")...)
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("%q is not one line", err)
			}
		})
	}
}

// What comes from a command ends with a line break.
func TestAPathWithALineBreakIsRefused(t *testing.T) {
	files := writeFiles(t, localhost(t), inPlace)
	_, err := identity.FromFiles(files.ca, files.cert+"\n", files.key)
	wantError(t, err, "identity: ", `tls.crt\n"`, "line break", "no such file")
}

// oddCA is a certificate that crypto/x509 does not parse: ca's, with the bytes what
// replaced by as many others.
func oddCA(t testing.TB, ca *pki.CA, what, with []byte) []byte {
	t.Helper()
	der := derOf(ca.PEM)
	if bytes.Count(der, what) != 1 || len(what) != len(with) {
		t.Fatalf("%x stands %d times in the certificate", what, bytes.Count(der, what))
	}
	der = bytes.Replace(der, what, with, 1)
	if _, err := x509.ParseCertificate(der); err == nil {
		t.Fatal("crypto/x509 reads it")
	}
	return asPEM("CERTIFICATE", der)
}

// negativeSerial is a root with a serial number below zero.
func negativeSerial(t testing.TB) []byte {
	t.Helper()
	ca := newCA(t, "negative")
	cert := must(x509.ParseCertificate(derOf(ca.PEM)))
	serial := must(asn1.Marshal(cert.SerialNumber))
	negative := bytes.Clone(serial)
	negative[2] = 0x80 // the sign
	return oddCA(t, ca, serial, negative)
}

// unknownCurve is a root with a key on a curve that Go does not have.
func unknownCurve(t testing.TB) []byte {
	t.Helper()
	p256 := must(asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}))
	other := must(asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 77}))
	return oddCA(t, newCA(t, "curve"), p256, other)
}

func TestARootThatGoCannotParseTakesNothingFromTheOthers(t *testing.T) {
	l := localhost(t)
	address := startTLS(t, serverTLS(t, l.CA, l.Server))
	cert, key := l.Client.CertPEM, l.Client.KeyPEM
	for name, test := range map[string]struct {
		ca   []byte
		want []string // in Info.Unreadable
	}{
		"negative serial number": {slices.Concat(l.CA.PEM, negativeSerial(t)), []string{"caCertPEM: ignored: ", `certificate 2 ("CN=negative")`, "negative serial number"}},
		"unknown curve, first":   {slices.Concat(unknownCurve(t), l.CA.PEM), []string{`certificate 1 ("CN=curve")`, "unsupported elliptic curve"}},
		"not a certificate":      {slices.Concat(asPEM("CERTIFICATE", []byte("x")), l.CA.PEM), []string{`certificate 1 ("")`, "malformed"}},
		"many":                   {slices.Concat(bytes.Repeat(unknownCurve(t), 9), l.CA.PEM), []string{"certificate 5", "and 4 more"}},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := threePEM{test.ca, cert, key}.factory(address)
			if err != nil {
				t.Fatal(err)
			}
			wantConnection(t, f)
			for _, text := range test.want {
				if got := f.Identity().Unreadable; !strings.Contains(got, text) || strings.Contains(got, "\n") {
					t.Errorf("Info shows %q as unreadable, want %q in it", got, text)
				}
			}
		})
	}
	_, err := threePEM{slices.Concat(negativeSerial(t), unknownCurve(t)), cert, key}.factory(address)
	wantError(t, err, "identity: caCertPEM: no certificate can be parsed", "CN=negative", "CN=curve")
	_, err = threePEM{l.CA.PEM, slices.Concat(negativeSerial(t), cert), key}.factory(address)
	wantError(t, err, "identity: clientCertPEM: ", "cannot be parsed", "CN=negative")
}

// An intermediate that Go cannot parse is sent: the server may be able to.
func TestAnIntermediateThatGoCannotParseIsShownAllTheSame(t *testing.T) {
	l := localhost(t)
	odd := negativeSerial(t)
	shown := identityOf(t, l.CA, l.Client)
	shown.Certificate.Certificate = append(shown.Certificate.Certificate, derOf(odd))
	for name, construct := range map[string]func() (*factory, error){
		"PEM": threePEM{l.CA.PEM, slices.Concat(l.Client.CertPEM, odd), l.Client.KeyPEM}.factoryFor("localhost:1"),
		"source": func() (*factory, error) {
			return fromSource((&memory{identity: shown}).source, "localhost:1", nil)
		},
	} {
		f, err := construct()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := f.Identity().Unreadable; !strings.Contains(got, "still sent to servers: certificate 2 (\"CN=negative\")") {
			t.Errorf("%s: Info shows %q as unreadable", name, got)
		}
	}
}

func (p threePEM) factoryFor(address string) func() (*factory, error) {
	return func() (*factory, error) { return p.factory(address) }
}

// A bundle is renewed while it is in use: the new roots beside the one that cannot be
// parsed are taken, and the log says once which was left out.
func TestARenewedBundleWithAnOddRootIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInBubble(t)
		other := newCA(t, "the next")
		b.files.put(t, slices.Concat(b.l.CA.PEM, negativeSerial(t), other.PEM), b.l.Client)
		time.Sleep(12 * time.Second)
		id := b.factory.Identity()
		if id.Generation != 2 || id.LastError != nil || !strings.Contains(id.Unreadable, "CN=negative") {
			t.Errorf("the identity is %+v", id)
		}
		time.Sleep(5 * time.Minute)
		b.call(t)
		if n := b.log.count("WARN", "cannot be parsed"); n != 1 {
			t.Errorf("%d warnings of a root that is left out, want 1", n)
		}

		b.files.put(t, negativeSerial(t), b.l.Client)
		time.Sleep(12 * time.Second)
		if now := b.factory.Identity(); now.Generation != 2 || now.LastError == nil || now.Unreadable != id.Unreadable {
			t.Errorf("with no root that can be read the identity is %+v", now)
		}
		b.call(t)
	})
}
