package identity_test

import (
	"bytes"
	"encoding/pem"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/internal/pki"
)

func TestBadFilesAreNamedAtConstruction(t *testing.T) {
	l, other := localhost(t), localhost(t)
	now := time.Now()
	expired := issue(t, l.CA, pki.Request{NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)})
	for name, test := range map[string]struct {
		breakIt func(t *testing.T, f *certFiles)
		culprit func(f *certFiles) string
		want    []string
	}{
		"CA missing":         {func(t *testing.T, f *certFiles) { remove(t, f.ca) }, caOf, []string{"no such file"}},
		"certificate gone":   {func(t *testing.T, f *certFiles) { remove(t, f.cert) }, certOf, []string{"no such file"}},
		"key missing":        {func(t *testing.T, f *certFiles) { remove(t, f.key) }, keyOf, []string{"no such file"}},
		"a directory":        {func(t *testing.T, f *certFiles) { remove(t, f.ca); mkdir(t, f.ca) }, caOf, []string{"not a regular file"}},
		"no path":            {func(_ *testing.T, f *certFiles) { f.ca = "" }, caOf, []string{"path is empty"}},
		"huge":               {func(t *testing.T, f *certFiles) { write(t, f.ca, make([]byte, 17<<20)) }, caOf, []string{"larger than 16 MiB"}},
		"CA without one":     {func(t *testing.T, f *certFiles) { write(t, f.ca, l.Client.KeyPEM) }, caOf, []string{"caFile", "no certificate"}},
		"key of another":     {func(t *testing.T, f *certFiles) { write(t, f.key, other.Client.KeyPEM) }, keyOf, []string{"keyFile", "does not match"}},
		"key encrypted":      {func(t *testing.T, f *certFiles) { write(t, f.key, encryptedKey) }, keyOf, []string{"keyFile", "encrypted"}},
		"key encrypted, old": {func(t *testing.T, f *certFiles) { write(t, f.key, oldEncryptedKey) }, keyOf, []string{"keyFile", "encrypted"}},
		"for a server":       {func(t *testing.T, f *certFiles) { f.put(t, l.CA.PEM, l.Server) }, certOf, []string{"certFile", "not for client authentication"}},
		"expired":            {func(t *testing.T, f *certFiles) { f.put(t, l.CA.PEM, expired) }, certOf, []string{"certFile", "expired at"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := writeFiles(t, l, inPlace)
			test.breakIt(t, f)
			_, err := fromFiles(f, "localhost:1")
			wantError(t, err, append(slices.Clone(test.want), "identity: ", test.culprit(f))...)
		})
	}
}

func caOf(f *certFiles) string   { return f.ca }
func certOf(f *certFiles) string { return f.cert }
func keyOf(f *certFiles) string  { return f.key }

var (
	encryptedKey    = pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})
	oldEncryptedKey = pem.EncodeToMemory(&pem.Block{
		Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}, Bytes: []byte("x"),
	})
)

func mkdir(t testing.TB, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func TestOneFileMayHoldTheCertificateAndItsKey(t *testing.T) {
	l := localhost(t)
	f := writeFiles(t, l, inPlace)
	write(t, f.cert, slices.Concat(l.Client.KeyPEM, l.Client.CertPEM))
	address := startTLS(t, serverTLS(t, l.CA, l.Server))
	factory, err := fromFiles(&certFiles{ca: f.ca, cert: f.cert, key: f.cert}, address)
	if err != nil {
		t.Fatal(err)
	}
	wantConnection(t, factory)
}

// Whatever the files hold, there is an error or a provider, and no error contains the
// content of the key's file.
func FuzzFiles(f *testing.F) {
	l := localhost(f)
	f.Add(l.CA.PEM, l.Client.CertPEM, l.Client.KeyPEM)
	f.Add(cutOff(l.CA.PEM), slices.Concat(l.Client.CertPEM, l.CA.PEM), encryptedKey)
	f.Add([]byte("-----BEGIN CERTIFICATE-----"), []byte("-----BEGIN X509 CRL-----"), oldEncryptedKey)
	list, err := l.CA.RevocationList(time.Now().Add(time.Hour), l.Client)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(list, list, list)
	f.Add(slices.Concat(bom(l.CA.PEM), negativeSerial(f)), utf16LE(l.Client.CertPEM), withLineEnds(l.Client.KeyPEM, `\n`))
	f.Add(withLineEnds(l.CA.PEM, "\r"), slices.Concat(bytes.TrimSpace(l.Client.CertPEM), l.Client.KeyPEM), derOf(l.Client.KeyPEM))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, ca, cert, key []byte) {
		files := &certFiles{dir: dir, ca: dir + "/ca.crt", cert: dir + "/tls.crt", key: dir + "/tls.key"}
		write(t, files.ca, ca)
		write(t, files.cert, cert)
		write(t, files.key, key)
		_, err := fromFiles(files, "localhost:1")
		if err == nil {
			_, _ = fromFiles(files, "localhost:1", identity.WithCRLFiles(true, files.ca))
			return
		}
		if len(key) > 40 && bytes.Contains([]byte(err.Error()), key) {
			t.Error("the error tells the key")
		}
		_, _ = newFactory(l, "localhost:1", options{identity.WithCRLFiles(true, files.ca)})
	})
}

// A program that passes the key itself in place of its path must not find it in a log.
func TestAKeyInThePlaceOfItsPathIsNotShown(t *testing.T) {
	l := localhost(t)
	files := writeFiles(t, l, inPlace)
	_, err := identity.FromFiles(files.ca, files.cert, string(l.Client.KeyPEM))
	wantError(t, err, "identity: ", "PEM text; want a path")
	if strings.Contains(err.Error(), "BEGIN") {
		t.Errorf("the error shows the key: %v", err)
	}
}
