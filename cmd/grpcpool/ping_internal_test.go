package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

func (s *site) ping(t *testing.T, more ...string) ran {
	t.Helper()
	return runLine(t.Context(), append(append([]string{"ping", s.Addr(), "--count", "3", "--interval", "1ms"}, s.flags()...), more...)...)
}

func TestPingSaysWhatTheServerIsLike(t *testing.T) {
	s := newSite(t)
	got := s.ping(t)
	if got.status != exitOK || got.stderr != "" {
		t.Fatalf("status %d, stderr %q, stdout:\n%s", got.status, got.stderr, got.stdout)
	}
	for _, want := range []string{
		"PING 127.0.0.1:", "TLS 1.3, TLS_", "ALPN h2", `"CN=server" for ["localhost" "127.0.0.1" "::1"]`,
		`issued by "CN=go-grpcpool local CA"`, "in 24 hours", "requested and provided", "sets no limit",
		"PING answered in", "GOAWAY ENHANCE_YOUR_CALM \"too_many_pings\"",
		"seq=1 time=", "seq=3 time=", " SERVING\n", "3 pings, 3 answered, 0 % lost, 1 connection\nmin ",
	} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("there is no %q in:\n%s", want, got.stdout)
		}
	}
}

func TestPingInJSON(t *testing.T) {
	s := newSite(t)
	got := s.ping(t, "--json")
	var doc pingDocument
	if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil {
		t.Fatalf("%v in:\n%s", err, got.stdout)
	}
	if doc.Summary.Answered != 3 || len(doc.Pings) != 3 || doc.Findings.TLS == nil || !doc.Findings.TLS.ClientAsked || doc.Error != "" {
		t.Errorf("%+v", doc)
	}
}

func TestPingOfAServerWithALimitAndWithoutHealthOrTLS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxConcurrentStreams(7))
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() { server.Stop(); <-served }()
	got := runLine(t.Context(), "ping", "--plaintext", "--count", "1", l.Addr().String())
	for _, want := range []string{"at most 7 at a time", "no health service", "1 answered"} {
		if got.status != exitOK || !strings.Contains(got.stdout, want) {
			t.Errorf("status %d, no %q in:\n%s", got.status, want, got.stdout)
		}
	}
}

// Row 21 of the fault matrix, and its neighbours.
func TestPingSaysWhyAndWhatToDo(t *testing.T) {
	s := newSite(t)
	stranger, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "other-ca.pem", stranger.CA.PEM)
	s.write(t, "other-cert.pem", stranger.Client.CertPEM)
	s.write(t, "other-key.pem", stranger.Client.KeyPEM)
	plain := grpcpooltest.NewStandalone()
	if err := plain.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer plain.Stop()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	expired := s.servesAs(t, grpcpooltest.CertRequest{Hosts: []string{"127.0.0.1"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	elsewhere := s.servesAs(t, grpcpooltest.CertRequest{Hosts: []string{"elsewhere.example"}})
	for name, tt := range map[string]struct {
		args       []string
		want, hint string
	}{
		"wrong CA":                  {[]string{s.Addr(), "--ca", s.path("other-ca.pem")}, "not signed by a trusted CA", "(see --ca)"},
		"the system's authorities":  {[]string{s.Addr()}, "not signed by a trusted CA", "(see --ca)"},
		"no client certificate":     {[]string{s.Addr(), "--ca", s.path("ca.pem")}, "refused the client certificate (remote error: tls: certificate required)", "configure a client certificate (see --cert, --key)"},
		"another's client":          {[]string{s.Addr(), "--ca", s.path("ca.pem"), "--cert", s.path("other-cert.pem"), "--key", s.path("other-key.pem")}, "refused the client certificate", "(see --cert, --key)"},
		"expired":                   {[]string{expired, "--ca", s.path("ca.pem")}, "not valid at this time", "renew it"},
		"wrong name":                {[]string{elsewhere, "--ca", s.path("ca.pem")}, "certificate is for another name", "(see --authority)"},
		"TLS to a plaintext server": {[]string{plain.Addr(), "--ca", s.path("ca.pem")}, "does not speak TLS", "(see --plaintext)"},
		"plaintext to a TLS server": {[]string{s.Addr(), "--plaintext"}, "", "whether it expects TLS"},
		"nothing there":             {[]string{closed.Addr().String(), "--plaintext"}, "nothing is listening at that address", "start the server"},
		"no such host":              {[]string{"no-such-host.invalid:1", "--plaintext"}, "does not resolve", "check the name"},
	} {
		got := runLine(t.Context(), append([]string{"ping", "--count", "1", "--timeout", "10s"}, tt.args...)...)
		_, problem, _ := strings.Cut(got.stdout, "problem")
		problem, pings, _ := strings.Cut(problem, "\n")
		if got.status != exitFailed || !strings.Contains(problem, tt.want) || !strings.Contains(problem, tt.hint) {
			t.Errorf("%s: status %d, problem %q, want 1, %q and %q", name, got.status, problem, tt.want, tt.hint)
		}
		if _, failed, ok := strings.Cut(pings, "seq=1 failed: "); !ok || !strings.Contains(failed, tt.hint) || !strings.Contains(pings, "1 ping, 0 answered, 100 % lost") {
			t.Errorf("%s: %s", name, pings)
		}
	}
}

// servesAs starts a TLS server with a certificate of the site's CA, and returns its
// address.
func (s *site) servesAs(t *testing.T, r grpcpooltest.CertRequest) string {
	t.Helper()
	pair, err := s.certs.CA.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	config, err := s.certs.CA.ServerConfig(pair)
	if err != nil {
		t.Fatal(err)
	}
	config.NextProtos = []string{"h2"}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.Copy(io.Discard, c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestPingEndsWhenInterrupted(t *testing.T) {
	s := newSite(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stderr strings.Builder
	out := &onText{text: "seq=2", do: cancel}
	if status := run(ctx, append([]string{"ping", s.Addr(), "--interval", "1ms"}, s.flags()...), out, &stderr); status != exitOK {
		t.Errorf("status %d, %s", status, stderr.String())
	}
	if !strings.Contains(out.String(), "answered, 0 % lost") {
		t.Errorf("no summary in %s", out.String())
	}
}

func TestPingMisuse(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "the server is missing"},
		{[]string{"a:1", "b:2"}, `unexpected argument "b:2"`},
		{[]string{"a:1", "--count", "-1"}, "--count is -1"},
		{[]string{"a:1", "--interval", "0s"}, "--interval is 0s"},
		{[]string{"a:1", "--key", "k"}, "--cert and --key must be given together"},
		{[]string{"a:1", "--ca", "/no/such/file"}, "--ca: open /no/such/file"},
		{[]string{"nosuchscheme://a:1", "--plaintext"}, "no resolver is registered"},
	} {
		got := runLine(t.Context(), append([]string{"ping"}, tt.args...)...)
		if got.status != exitMisuse || got.stdout != "" || !strings.Contains(got.stderr, tt.want) {
			t.Errorf("%q: status %d, stdout %q, stderr %q; want 2, nothing and %q", tt.args, got.status, got.stdout, got.stderr, tt.want)
		}
	}
	if got := runLine(t.Context(), "help", "ping"); got.status != exitOK || !strings.Contains(got.stdout, "--interval") {
		t.Errorf("help: %+v", got)
	}
}
