package main

import (
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// site is a server with mutual TLS, and the files to connect to it.
type site struct {
	*grpcpooltest.Standalone

	dir   string
	certs *grpcpooltest.Certs
}

func newSite(t *testing.T) *site {
	t.Helper()
	l, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	config, err := l.CA.ServerConfig(l.Server)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{Standalone: grpcpooltest.NewStandalone(grpcpooltest.WithServerOptions(grpc.Creds(credentials.NewTLS(config)))), dir: t.TempDir(), certs: l}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	s.write(t, "ca.pem", l.CA.PEM)
	s.write(t, "cert.pem", l.Client.CertPEM)
	s.write(t, "key.pem", l.Client.KeyPEM)
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(s.path(name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *site) flags() []string {
	return []string{"--cert", s.path("cert.pem"), "--key", s.path("key.pem"), "--ca", s.path("ca.pem")}
}
