package grpcpooltest_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

func TestCertificatesThatAreNotValidAreRefused(t *testing.T) {
	expired := time.Now().Add(-time.Minute)
	for name, test := range map[string]struct {
		opt  grpcpooltest.CertsOption
		want string
	}{
		"the server's has expired":         {grpcpooltest.WithServerCert(grpcpooltest.CertRequest{Hosts: []string{"localhost", "127.0.0.1"}, NotAfter: expired}), "expired"},
		"the server's is for another name": {grpcpooltest.WithServerCert(grpcpooltest.CertRequest{Hosts: []string{"elsewhere.example"}}), "127.0.0.1"},
		"the client's has expired":         {grpcpooltest.WithClientCert(grpcpooltest.CertRequest{NotAfter: expired}), ""}, // TLS 1.3: the alert may come too late for gRPC
	} {
		t.Run(name, func(t *testing.T) {
			certs, err := grpcpooltest.NewCerts(test.opt)
			if err != nil {
				t.Fatal(err)
			}
			cc := newClient(t, grpcpooltest.NewServer(t, grpcpooltest.WithCerts(certs)))
			if err := call(t.Context(), cc); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the call ended with %v, want Unavailable with %q", err, test.want)
			}
		})
	}
}

func TestRenewedCertificatesReplaceTheFilesOfTheOldOnes(t *testing.T) {
	certs, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := certs.Renew()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, c := range []*grpcpooltest.Certs{certs, renewed} {
		files, err := c.WriteFiles(dir)
		if err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string][]byte{files.CA: c.CA.PEM, files.Cert: c.Client.CertPEM, files.Key: c.Client.KeyPEM} {
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s holds something else: %v", path, err)
			}
		}
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 3 {
		t.Errorf("the directory holds %v, %v, want three files", all, err)
	}
	if renewed.CA != certs.CA || bytes.Equal(renewed.Client.CertPEM, certs.Client.CertPEM) || bytes.Equal(renewed.Server.CertPEM, certs.Server.CertPEM) {
		t.Error("a renewal is of the same authority, and has new certificates")
	}
	if _, err := certs.WriteFiles(filepath.Join(dir, "nowhere")); err == nil || !strings.HasPrefix(err.Error(), "grpcpooltest: writing certificates: ") {
		t.Errorf("writing to a directory that does not exist: %v", err)
	}
}

func TestCertsWithoutAnAuthorityAreAnError(t *testing.T) {
	c := new(grpcpooltest.Certs)
	for name, f := range map[string]func() error{
		"ServerTLS":  func() error { _, err := c.ServerTLS(); return err },
		"ClientTLS":  func() error { _, err := c.ClientTLS(); return err },
		"Renew":      func() error { _, err := c.Renew(); return err },
		"WriteFiles": func() error { _, err := c.WriteFiles(t.TempDir()); return err },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), "authority is not set") {
			t.Errorf("%s: %v, want that there is no authority", name, err)
		}
	}
	if _, err := grpcpooltest.NewCerts(nil); err == nil {
		t.Error("a nil option is no error")
	}
}
