//go:build unix

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflectpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
)

// evil is text that a hostile server could send to a terminal: it sets the title, clears
// the screen, overwrites a line, does the same with 8-bit controls, writes from right to
// left, and is not UTF-8.
const evil = "\x1b]0;owned\a\x1b[2J\rseq=1\nseq=9 time=0.01 ms SERVING\u009b2J\u202egpj.exe\u2066\ufeff\x7f"

// unprintable returns the part of an output that must not reach a terminal.
func unprintable(text string) string {
	var all []rune
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			all = append(all, r)
		}
	}
	if !utf8.ValidString(text) {
		return "not UTF-8"
	}
	return string(all)
}

// untrusted serves TLS with a self-signed certificate.
func untrusted(t *testing.T) (address string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Map(func(r rune) rune { // certificates allow only ASCII there
		if r > 126 {
			return -1
		}
		return r
	}, evil)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x" + evil, Organization: []string{evil}}, DNSNames: []string{"a" + names},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2"}})
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

// describing starts a server whose reflection service describes only itself.
type describing struct {
	reflectpb.UnimplementedServerReflectionServer
}

func (describing) ServerReflectionInfo(s reflectpb.ServerReflection_ServerReflectionInfoServer) error {
	if _, err := s.Recv(); err != nil {
		return err
	}
	return s.Send(&reflectpb.ServerReflectionResponse{MessageResponse: &reflectpb.ServerReflectionResponse_ErrorResponse{
		ErrorResponse: &reflectpb.ErrorResponse{ErrorMessage: evil},
	}})
}

// http1 answers every request with the text.
func http1(t *testing.T, text string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
			io.WriteString(c, text)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestNothingThatAServerSaysReachesATerminalAsItCame(t *testing.T) {
	described := grpc.NewServer()
	reflectpb.RegisterServerReflectionServer(described, describing{})
	goAway, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	leaving := h2test.Start(goAway, h2test.WithFault(h2test.GoAwayAtOnce))
	defer leaving.Close()
	said := answering(t, status.New(codes.Internal, "x"+evil))
	for name, args := range map[string][]string{
		"status":                 {"--plaintext", said},
		"untrusted certificate":  {strings.Replace(untrusted(t), "127.0.0.1", "localhost", 1)},
		"page":                   {"--plaintext", webServer(t, func(w http.ResponseWriter, _ *http.Request) { page(w, 404) })},
		"content type":           {"--plaintext", webServer(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/\u202e\u009b") })},
		"HTTP/1":                 {"--plaintext", http1(t, "HTTP/1.1 400 "+evil+"\r\n\r\n")},
		"another protocol":       {"--plaintext", http1(t, evil+evil)},
		"not UTF-8":              {"--plaintext", http1(t, "\xff\xfe\x1b[2J\xc3\x28 and so on")},
		"GOAWAY":                 {"--plaintext", goAway.Addr().String()},
		"target of the caller's": {"--plaintext", "127.0.0.1:1\u202e"},
	} {
		for _, more := range [][]string{{"ping", "--count", "1"}, {"ping", "--count", "1", "--json"}, {"bench", "--duration", "100ms"}} {
			got := runLine(t.Context(), append(more, args...)...)
			if bad := unprintable(got.stdout + got.stderr); bad != "" {
				t.Errorf("%s, %q: %q came out in\n%q\n%q", name, more, bad, got.stdout, got.stderr)
			}
			if strings.Contains(got.stdout, "\nseq=9 ") {
				t.Errorf("%s, %q: a line of the server's own in\n%s", name, more, got.stdout)
			}
			if more[len(more)-1] == "--json" && got.status != exitMisuse && !json.Valid([]byte(got.stdout)) {
				t.Errorf("%s: no JSON: %q", name, got.stdout)
			}
		}
	}
	got := runLine(t.Context(), "bench", "--plaintext", "--method", "a.B/C", listening(t, described))
	if bad := unprintable(got.stderr); bad != "" || !strings.Contains(got.stderr, "owned") {
		t.Errorf("reflection: %q came out in %q", bad, got.stderr)
	}
}

// Escaping does not change the values in JSON.
func TestEscapedJSONHoldsWhatTheServerSaid(t *testing.T) {
	got := runLine(t.Context(), "ping", "--plaintext", "--count", "1", "--json", answering(t, status.New(codes.Internal, "Zürich")))
	var doc pingDocument
	if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil || len(doc.Pings) != 1 || !strings.HasSuffix(doc.Pings[0].Health, "Internal: Zürich") {
		t.Errorf("%v: %+v", err, doc)
	}
}
