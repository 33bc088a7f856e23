//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// asEdited is PEM after an editor on Windows, and a paste into an indented file.
func asEdited(text []byte) []byte {
	return slices.Concat([]byte("\ufeff  "), bytes.ReplaceAll(bytes.TrimSpace(text), []byte("\n"), []byte("\r\n  ")))
}

// odd rewrites the site's files. Another authority stands before the site's in one file,
// and no line break between the two.
func (s *site) odd(t *testing.T) {
	t.Helper()
	other, err := grpcpooltest.NewCA("another")
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "ca.pem", asEdited(slices.Concat(bytes.TrimSpace(other.PEM), s.certs.CA.PEM)))
	s.write(t, "cert.pem", asEdited(s.certs.Client.CertPEM))
	s.write(t, "key.pem", asEdited(s.certs.Client.KeyPEM))
}

func TestPingReadsPEMAsPeopleMakeIt(t *testing.T) {
	s := newSite(t)
	s.odd(t)
	if got := s.ping(t); got.status != exitOK || !strings.Contains(got.stdout, "requested and provided") {
		t.Errorf("with a client certificate: status %d, stderr %q, stdout:\n%s", got.status, got.stderr, got.stdout)
	}
	// Its problem is the missing client certificate, so the server's was verified.
	got := runLine(t.Context(), "ping", s.Addr(), "--count", "1", "--ca", s.path("ca.pem"))
	if !strings.Contains(got.stdout, "certificate required") {
		t.Errorf("with --ca alone: status %d, stderr %q, stdout:\n%s", got.status, got.stderr, got.stdout)
	}
}

func TestBenchReadsPEMAsPeopleMakeItForBothWays(t *testing.T) {
	s := newSite(t)
	s.odd(t)
	got := runLine(t.Context(), append([]string{"bench", "--json", "--callers", "2", "--duration", "100ms", s.Addr()}, s.flags()...)...)
	var doc benchDocument
	if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil {
		t.Fatalf("%v in:\n%s%s", err, got.stdout, got.stderr)
	}
	if len(doc.Results) != 2 {
		t.Errorf("%+v", doc)
	}
	for _, r := range doc.Results {
		if r.Calls == 0 || r.Failed != 0 {
			t.Errorf("%+v", r)
		}
	}
}

func TestTheProxyReadsPEMAsPeopleMakeItForItsListener(t *testing.T) {
	s := newSite(t)
	s.odd(t)
	s.write(t, "listen-cert.pem", asEdited(s.certs.Server.CertPEM))
	s.write(t, "listen-key.pem", asEdited(s.certs.Server.KeyPEM))
	p := s.proxy(t, "--listen", "127.0.0.1:0", "--listen-cert", s.path("listen-cert.pem"),
		"--listen-key", s.path("listen-key.pem"), "--listen-ca", s.path("ca.pem"))
	_, address, _ := strings.Cut(p.await(t, "listening"), "address=")
	address, _, _ = strings.Cut(address, " ")
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	got := runLine(t.Context(), append([]string{"ping", "--count", "1", "localhost:" + port}, s.flags()...)...)
	if got.status != exitOK {
		t.Errorf("status %d, stderr %q, stdout:\n%s", got.status, got.stderr, got.stdout)
	}
	p.end(t)
}

// The error says which flag it is and what is wrong with its file.
func TestAMistakeInAFileOfPEMIsNamedWithItsFlag(t *testing.T) {
	s := newSite(t)
	s.write(t, "binary", []byte{0xff, 0xfe, '-', 0})
	s.write(t, "listen-cert.pem", s.certs.Server.CertPEM)
	got := runLine(t.Context(), "ping", s.Addr(), "--ca", s.path("binary"))
	if got.status == exitOK || !strings.Contains(got.stderr, "--ca: "+s.path("binary")+": identity: caPEM: is UTF-16") {
		t.Errorf("status %d, stderr %q", got.status, got.stderr)
	}
	p := s.proxy(t, "--listen", "127.0.0.1:0", "--listen-cert", s.path("listen-cert.pem"),
		"--listen-key", s.path("key.pem"), "--listen-ca", s.path("ca.pem"))
	p.await(t, "--listen-cert and --listen-key: identity: keyPEM: cannot be used with certPEM")
	for range p.said {
	}
	if err := p.Wait(); err == nil {
		t.Error("the proxy ended with status 0")
	}
}
