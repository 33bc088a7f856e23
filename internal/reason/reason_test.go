package reason_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/internal/reason"
)

func dial(err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}, Err: err}
}

func TestAnErrorIsExplainedByItsTypeAndByItsWords(t *testing.T) {
	refused := dial(os.NewSyscallError("connect", syscall.ECONNREFUSED))
	alert := &net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}
	for _, tc := range []struct {
		name string
		err  error
		kind reason.Kind
		text string
	}{
		{
			"a dial", refused, reason.ConnectionRefused,
			"a:1: nobody listens there (dial tcp 10.0.0.1:1: connect: connection refused); start the server, or correct the host and port",
		},
		{
			"its status", status.Error(codes.Unavailable, fmt.Sprintf("connection error: desc = %q", "transport: Error while dialing: "+refused.Error())), reason.ConnectionRefused,
			`a:1: nobody listens there (connection error: desc = "transport: Error while dialing: dial tcp 10.0.0.1:1: connect: connection refused"); start the server, or correct the host and port`,
		},
		{
			"an alert behind a broken pipe", fmt.Errorf("write: broken pipe (%w)", fmt.Errorf("tap: refused by the peer: %w", alert)), reason.ClientCertificate,
			"a:1: the server refused the client certificate (remote error: tls: certificate required; write: broken pipe); give the client one",
		},
		{
			"its status", status.Error(codes.Unavailable, "write tcp: broken pipe (tap: refused by the peer: remote error: tls: certificate required)"), reason.ClientCertificate,
			"a:1: the server refused the client certificate (remote error: tls: certificate required; write tcp: broken pipe); give the client one",
		},
		{
			"a timeout", dial(os.ErrDeadlineExceeded), reason.NoAnswer,
			"a:1: it does not answer (dial tcp 10.0.0.1:1: i/o timeout); see whether the host is up, and whether a firewall drops what is sent there",
		},
		{
			"no address", status.Error(codes.Unavailable, "name resolver error: produced zero addresses"), reason.NoSuchHost,
			"a:1: there is no such host (produced zero addresses); correct the name, or see to its DNS record",
		},
		{
			"an alert of unknown meaning", errors.New("transport: authentication handshake failed: remote error: tls: decrypt error"), reason.HandshakeFailure,
			"a:1: the server broke the TLS handshake off (remote error: tls: decrypt error); see its log: it may want a client certificate, or other ciphers",
		},
		{
			"a web server", status.Error(codes.Unimplemented, "unexpected HTTP status code received from server: 404 (Not Found); transport: received unexpected content-type \"text/html\"\ndata: \"<html><head><title>404 Not\\u202e Found</title>\""), reason.HTTPAnswer,
			`a:1: it answers HTTP 404 (Not Found), not gRPC (unexpected HTTP status code received from server: 404 (Not Found), "404 Not\\u202e Found"); a web server or proxy answers there: check the host and port, and whether it routes this call to a gRPC server`,
		},
		{
			"a web server that wants a certificate", status.Error(codes.Internal, "unexpected HTTP status code received from server: 400 (Bad Request); transport: received unexpected content-type \"text/html\"\ndata: \"<html>\\r\\n<head><title>400 No required SSL certificate was sent</title></head>\""), reason.ClientCertificate,
			`a:1: the server refused the client certificate (unexpected HTTP status code received from server: 400 (Bad Request), "400 No required SSL certificate was sent"); give the client one`,
		},
		{
			"a proxy without a server", status.Error(codes.Unavailable, "unexpected HTTP status code received from server: 503 (Service Unavailable); malformed header: missing HTTP content-type"), reason.HTTPAnswer,
			`a:1: it answers HTTP 503 (Service Unavailable), not gRPC (unexpected HTTP status code received from server: 503 (Service Unavailable)); a proxy answered and could not reach its backend: check the server behind it`,
		},
		{
			"a redirect", status.Error(codes.Unknown, "unexpected HTTP status code received from server: 302 (Found)"), reason.HTTPAnswer,
			`a:1: it answers HTTP 302 (Found), not gRPC (unexpected HTTP status code received from server: 302 (Found)); a web server there redirects the call, perhaps to a login page: check the host and port, and whether it routes this call to a gRPC server`,
		},
		{
			"escape sequences", errors.New("x509: certificate is valid for \x1b[2J\u202e\u009b31m\xff\a, not \U000e0041"), reason.WrongName,
			`a:1: the server's certificate is for another name (x509: certificate is valid for \u001b[2J\u202e\u009b31m\xff\u0007, not \udb40\udc41); dial a name that is in it, or have it issued for this one`,
		},
		{"lines of a peer", errors.New("one\n two\r\n\tthree"), reason.Unknown, "a:1: one two three"},
		{"far too much", errors.New(strings.Repeat("x", 1000)), reason.Unknown, "a:1: " + strings.Repeat("x", 400) + "... (1000 bytes)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := reason.Explain("a:1", tc.err)
			if got.Error() != tc.text || reason.Of(tc.err) != tc.kind || reason.Of(got) != tc.kind {
				t.Errorf("kind %q: %s\nwant %q: %s", reason.Of(tc.err), got, tc.kind, tc.text)
			}
			if !errors.Is(got, tc.err) {
				t.Error("the error itself is lost")
			}
			// Whoever sees the words only, as an RPC's status has them, adds nothing.
			again := reason.Explain("", status.Error(codes.Unavailable, got.Error()))
			if tc.kind != reason.Unknown && again.Error() != got.Error() || reason.Of(again) != tc.kind {
				t.Errorf("explained again, kind %q: %s", reason.Of(again), again)
			}
			if twice := reason.Explain("b:2", fmt.Errorf("doing: %w", got)); twice.Error() != "doing: "+got.Error() {
				t.Errorf("wrapped and explained again: %s", twice)
			}
		})
	}
}

func TestAServersOwnWordsAreNotExplained(t *testing.T) {
	said := status.Error(codes.Unavailable, "dial tcp 10.0.0.7:5432: connect: connection refused")
	err := reason.Explain("", fmt.Errorf("doing: %w", reason.ByServer(said)))
	if want := "doing: dial tcp 10.0.0.7:5432: connect: connection refused"; err.Error() != want || reason.Of(err) != reason.Unknown {
		t.Errorf("kind %q: %s", reason.Of(err), err)
	}
	if status.Code(err) != codes.Unavailable || !errors.Is(err, said) {
		t.Errorf("the status is lost: %v", err)
	}
}

func TestWhatIsEscapedCanBePrinted(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "",
		"Zürich, Ελλάδα ✓":                "Zürich, Ελλάδα ✓",
		"one\n\ttwo":                      "one\n\ttwo",
		"\x1b]0;owned\a\r":                `\u001b]0;owned\u0007\u000d`,
		"\u009b31m\u0085\u007f":           `\u009b31m\u0085\u007f`,
		"\u202egpj.exe\u2066\u200b\ufeff": `\u202egpj.exe\u2066\u200b\ufeff`,
		"a\xc3\x28\xffb":                  `a\xc3(\xffb`,
	} {
		if got := reason.Escape(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestNothingIsExplainedAsNothing(t *testing.T) {
	if err := reason.Explain("a:1", nil); err != nil {
		t.Errorf("%v", err)
	}
	if kind := reason.Of(nil); kind != reason.Unknown {
		t.Errorf("kind %q", kind)
	}
}

func ExampleExplain() {
	err := fmt.Errorf("transport: authentication handshake failed: %w", x509.UnknownAuthorityError{})
	fmt.Println(reason.Explain("10.0.0.1:443", err))

	// Output:
	// 10.0.0.1:443: the server's certificate is not signed by an authority that is trusted here (x509: certificate signed by unknown authority); add the server's CA to the roots, or see whether this is the right server
}
