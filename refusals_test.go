package grpcpool_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/internal/reason"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// refusal is one way in which a connection is not to be had.
type refusal struct {
	name    string
	address string
	creds   credentials.TransportCredentials
	kind    reason.Kind
	says    []string // in the error
	repeats int      // of what a race decides, or 0
}

// tries is how often what a race between an alert and a write decides is tried.
const tries = 20

// refusals are all of them, against servers that live as long as the test.
func refusals(t *testing.T) []refusal {
	t.Helper()
	l, stranger := localhost(t), localhost(t)
	now := time.Now()
	good := serverTLS(t, l.CA, l.Server)
	mutual := clientCreds(t, l, l.Client)
	open := startTLS(t, good)
	tls12 := good.Clone()
	tls12.MinVersion, tls12.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	open12 := startTLS(t, tls12)
	wrongName := serverTLS(t, l.CA, issue(t, l.CA, grpcpooltest.CertRequest{Hosts: []string{"other.example"}}))
	past := grpcpooltest.CertRequest{NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)}
	pastServer := past
	pastServer.Hosts = []string{"127.0.0.1"}
	expired := serverTLS(t, l.CA, issue(t, l.CA, pastServer))
	clientOnly := serverTLS(t, l.CA, issue(t, l.CA, grpcpooltest.CertRequest{Hosts: []string{"127.0.0.1"}, Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}))
	otherALPN, noALPN := good.Clone(), good.Clone()
	otherALPN.NextProtos, noALPN.NextProtos = []string{"http/1.1"}, nil
	web, secureWeb := httptest.NewServer(http.NotFoundHandler()), httptest.NewUnstartedServer(http.NotFoundHandler())
	secureWeb.Config.ErrorLog = log.New(io.Discard, "", 0)
	secureWeb.StartTLS()
	t.Cleanup(web.Close)
	t.Cleanup(secureWeb.Close)
	plain := grpcpooltest.NewServer(t).Addr()
	none := insecure.NewCredentials()

	return []refusal{
		{"nothing is listening", closedPort(t), none, reason.ConnectionRefused, []string{"nothing is listening at that address", "connect: connection refused"}, 0},
		{"no such socket", "unix:" + t.TempDir() + "/none", none, reason.NoSuchSocket, []string{"the socket does not exist"}, 0},
		{"no such host", "passthrough:///no-such-host.invalid:1", none, reason.NoSuchHost, []string{"no such host"}, 0},
		{"unreachable", "255.255.255.255:1", none, reason.Unreachable, []string{"network is unreachable"}, 0},

		{"unknown CA", open, clientCreds(t, stranger, l.Client), reason.UnknownCA, []string{"x509: certificate signed by unknown authority"}, 0},
		{"wrong name", startTLS(t, wrongName), mutual, reason.WrongName, []string{"for another name", "127.0.0.1"}, 0},
		{"server certificate expired", startTLS(t, expired), mutual, reason.ServerExpired, []string{"has expired or is not yet valid"}, 0},
		{"server certificate for clients", startTLS(t, clientOnly), mutual, reason.ServerCertificate, []string{"incompatible key usage"}, 0},

		{"no client certificate", open, clientCreds(t, l), reason.ClientCertificate, []string{"certificate required", "configure a client certificate"}, tries},
		{"client certificate of another CA", open, clientCreds(t, l, stranger.Client), reason.ClientCertificate, []string{"unknown certificate authority", "that the server trusts"}, tries},
		{"client certificate expired", open, clientCreds(t, l, issue(t, l.CA, past)), reason.ClientCertificate, []string{"expired certificate", "renew it"}, tries},
		{"no client certificate, TLS 1.2", open12, clientCreds(t, l), reason.HandshakeFailure, []string{"handshake failure", "it may require a client certificate"}, 5},
		{"client certificate of another CA, TLS 1.2", open12, clientCreds(t, l, stranger.Client), reason.ClientCertificate, []string{"unknown certificate authority"}, 5},

		{"plaintext server", plain, mutual, reason.PlaintextServer, []string{"does not speak TLS", "first record does not look like a TLS handshake"}, 5},
		{"web server behind TLS credentials", strings.TrimPrefix(web.URL, "http://"), mutual, reason.PlaintextServer, []string{"does not speak TLS"}, 5},
		{"TLS server", open, none, reason.HungUp, []string{"whether it expects TLS"}, tries},
		{"TLS web server", strings.TrimPrefix(secureWeb.URL, "https://"), none, reason.HungUp, []string{"whether it expects TLS"}, tries},
		{"TLS web server that says so", rawServer(t, answer("HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")), none, reason.TLSServer, []string{"speaks TLS, but this client does not", "HTTP/1.0 400 Bad Request"}, tries},
		{"TLS server that answers with an alert", rawServer(t, answer("\x15\x03\x01\x00\x02\x02\x46")), none, reason.TLSServer, []string{"a TLS record"}, tries},
		{"web server", rawServer(t, answer("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")), none, reason.HTTP1, []string{"HTTP/1.1 400 Bad Request"}, tries},
		{"another protocol", rawServer(t, answer("SSH-2.0-OpenSSH_9.6\r\n")), none, reason.NotHTTP2, []string{"SSH-2.0-OpenSSH_9.6"}, tries},
		{"ALPN without HTTP/2", rawServer(t, func(c net.Conn) { serveTLS(c, otherALPN) }), mutual, reason.NoALPN, []string{"no application protocol"}, 5},
		{"no ALPN", rawServer(t, func(c net.Conn) { serveTLS(c, noALPN) }), mutual, reason.NoALPN, []string{"ALPN"}, 5},
		{"TLS 1.2 only", open12, clientCreds13(t, l, l.Client), reason.TLSVersion, []string{"protocol version not supported", "WithMinTLSVersion"}, 5},
		{"hangs up", rawServer(t, func(c net.Conn) { c.Close() }), mutual, reason.HungUp, []string{"closed the connection before HTTP/2 began"}, tries},
		{"hangs up after the handshake", rawServer(t, func(c net.Conn) { serveTLS(c, withH2(good)) }), mutual, reason.HungUp, []string{"closed the connection before HTTP/2 began"}, tries},
	}
}

// Each is told on the first try, by everything that makes or uses a connection.
func TestARefusedConnectionNamesItsReason(t *testing.T) {
	for _, r := range refusals(t) {
		t.Run(r.name, func(t *testing.T) {
			f, err := grpcpool.NewFactory(r.address, r.creds)
			if err != nil {
				t.Fatal(err)
			}
			for i := range max(r.repeats, 1) {
				_, err := f.NewConnection(testContext(t))
				r.check(t, fmt.Sprintf("NewConnection, try %d", i+1), err)
				wantNotOK(t, err)

				pool := shared.New(f, 0)
				_, err = pool.Get(testContext(t))
				r.check(t, "Get", err)
				wantNotOK(t, err)
				_, err = testpb.NewTestServiceClient(pool).EmptyCall(testContext(t), &testpb.Empty{})
				r.check(t, "an RPC on the pool", err)
				pool.Close()
			}
		})
	}
}

// Programs look for gRPC's words. So whatever this library has to say, it says in
// addition: what a plain channel's call fails with stands in it, whole.
func TestARefusalKeepsGRPCsOwnWords(t *testing.T) {
	for _, r := range refusals(t) {
		t.Run(r.name, func(t *testing.T) {
			if r.name == "TLS server that answers with an alert" {
				t.Skip("a plain channel reads the alert as the length of a frame, and waits for 20 seconds")
			}
			cc, err := grpc.NewClient(r.address, grpc.WithTransportCredentials(r.creds))
			theirs := wordsOfACall(t, cc, err)
			wantTheirs := func(by, ours string) {
				t.Helper()
				if !strings.Contains(ours, theirs) && !slices.ContainsFunc(framesOf(theirs), func(frame string) bool { return strings.Contains(ours, frame) }) {
					t.Errorf("%s: %s\ndoes not hold %s", by, ours, theirs)
				}
			}
			cc, err = scale.NewClient(r.address, grpc.WithTransportCredentials(r.creds))
			wantTheirs("scale", wordsOfACall(t, cc, err))
			f, err := grpcpool.NewFactory(r.address, r.creds)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.NewConnection(testContext(t))
			wantTheirs("NewConnection", withoutPorts(err.Error()))
			pool := shared.New(f, 0)
			defer pool.Close()
			_, err = testpb.NewTestServiceClient(pool).EmptyCall(testContext(t), &testpb.Empty{})
			wantTheirs("an RPC on the pool", withoutPorts(status.Convert(err).Message()))
		})
	}
}

// framesOf are what stands before the operating system's or crypto/tls's words, which
// may differ from one connection to the next: package tap ends some connections before
// gRPC does, and a race decides whether a read or a write meets the end.
func framesOf(words string) []string {
	preface := []string{"error reading server preface: ", "write: broken pipe", "write: connection reset by peer"}
	if slices.ContainsFunc(preface, func(frame string) bool { return strings.Contains(words, frame) }) {
		return preface
	}
	for _, frame := range []string{"authentication handshake failed: ", "Error while dialing: "} {
		if before, _, found := strings.Cut(words, frame); found {
			return []string{before + frame}
		}
	}
	return nil
}

// wordsOfACall are what a call on cc, which it closes, fails with.
func wordsOfACall(t *testing.T, cc *grpc.ClientConn, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	_, err = testpb.NewTestServiceClient(cc).EmptyCall(testContext(t), &testpb.Empty{})
	if status.Code(err) != codes.Unavailable {
		t.Fatalf("the call ended with %v", err)
	}
	return withoutPorts(status.Convert(err).Message())
}

// withoutPorts takes this side's ports out of net's errors.
func withoutPorts(text string) string { return localPort.ReplaceAllString(text, "->") }

var localPort = regexp.MustCompile(`:\d+->`)

// What was met is still there behind the words, for errors.Is and errors.As.
func TestTheCauseOfARefusalCanBeCompared(t *testing.T) {
	refused := make(map[string]error)
	for _, r := range refusals(t) {
		f, err := grpcpool.NewFactory(r.address, r.creds)
		if err != nil {
			t.Fatal(err)
		}
		pool := shared.New(f, 0)
		_, refused[r.name] = pool.Get(testContext(t))
		pool.Close()
	}
	for name, found := range map[string]func(error) bool{
		"nothing is listening":       func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) },
		"no such socket":             func(err error) bool { return errors.Is(err, os.ErrNotExist) },
		"no such host":               asType[*net.DNSError],
		"unreachable":                func(err error) bool { return errors.Is(err, syscall.ENETUNREACH) },
		"unknown CA":                 asType[x509.UnknownAuthorityError],
		"wrong name":                 asType[x509.HostnameError],
		"server certificate expired": asType[x509.CertificateInvalidError],
		"plaintext server":           asType[tls.RecordHeaderError],
		"no client certificate":      asType[*net.OpError],
	} {
		if !found(refused[name]) {
			t.Errorf("%s: %v has lost its cause", name, refused[name])
		}
	}
}

func asType[E error](err error) bool {
	return errors.As(err, new(E))
}

// The channel alone, without the factory's words around it.
func TestARefusedConnectionNamesItsReasonToAnRPC(t *testing.T) {
	for _, r := range refusals(t) {
		for _, policy := range []string{"pick_first", "round_robin"} {
			t.Run(r.name+", "+policy, func(t *testing.T) {
				for i := range max(r.repeats, 1) {
					cc, err := scale.NewClient(r.address, grpc.WithTransportCredentials(r.creds),
						grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"`+policy+`":{}}]}`))
					if err != nil {
						t.Fatal(err)
					}
					_, err = testpb.NewTestServiceClient(cc).EmptyCall(testContext(t), &testpb.Empty{})
					r.check(t, fmt.Sprintf("an RPC, try %d", i+1), err)
					cc.Close()
				}
			})
		}
	}
}

// check wants an error that is one line, names the reason and says what to do.
func (r refusal) check(t *testing.T, from string, err error) {
	t.Helper()
	if err == nil {
		t.Fatalf("%s: no error", from)
	}
	text := err.Error()
	t.Logf("%s: %s", from, text)
	if strings.Contains(text, "\n") || len(text) > 700 {
		t.Errorf("%s: %q is not one line", from, text)
	}
	if kind := reason.Of(err); kind != r.kind {
		t.Errorf("%s: %q is of kind %q, want %q", from, text, kind, r.kind)
	}
	for _, part := range r.says {
		if !strings.Contains(text, part) {
			t.Errorf("%s: %q does not say %q", from, text, part)
		}
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("%s: %q has the code %v, want Unavailable", from, text, status.Code(err))
	}
	if strings.Count(text, "; ") == 0 {
		t.Errorf("%s: %q does not say what to do", from, text)
	}
}

// clientCreds trust l's authority and show the pair, if there is one.
func clientCreds(t *testing.T, l *grpcpooltest.Certs, pair ...grpcpooltest.KeyPair) credentials.TransportCredentials {
	t.Helper()
	return credentials.NewTLS(clientConfig(t, l, pair...))
}

func clientCreds13(t *testing.T, l *grpcpooltest.Certs, pair ...grpcpooltest.KeyPair) credentials.TransportCredentials {
	t.Helper()
	config := clientConfig(t, l, pair...)
	config.MinVersion = tls.VersionTLS13
	return credentials.NewTLS(config)
}

func clientConfig(t *testing.T, l *grpcpooltest.Certs, pair ...grpcpooltest.KeyPair) *tls.Config {
	t.Helper()
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(l.CA.PEM)
	for _, p := range pair {
		cert, err := tls.X509KeyPair(p.CertPEM, p.KeyPEM)
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = append(config.Certificates, cert)
	}
	return config
}

// answer reads what comes first and answers with text.
func answer(text string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1024))
		_, _ = io.WriteString(c, text)
		_, _ = io.Copy(io.Discard, c) // closing now would reset the connection
	}
}
