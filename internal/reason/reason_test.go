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
			"a:1: nothing is listening at that address (dial tcp 10.0.0.1:1: connect: connection refused); check the address, or start the server",
		},
		{
			"its status", status.Error(codes.Unavailable, fmt.Sprintf("connection error: desc = %q", "transport: Error while dialing: "+refused.Error())), reason.ConnectionRefused,
			`a:1: nothing is listening at that address (connection error: desc = "transport: Error while dialing: dial tcp 10.0.0.1:1: connect: connection refused"); check the address, or start the server`,
		},
		{
			"an alert behind a broken pipe", fmt.Errorf("write: broken pipe (%w)", fmt.Errorf("tap: refused by the peer: %w", alert)), reason.ClientCertificate,
			"a:1: the server refused the client certificate (remote error: tls: certificate required; write: broken pipe); configure a client certificate",
		},
		{
			"its status", status.Error(codes.Unavailable, "write tcp: broken pipe (tap: refused by the peer: remote error: tls: certificate required)"), reason.ClientCertificate,
			"a:1: the server refused the client certificate (remote error: tls: certificate required; write tcp: broken pipe); configure a client certificate",
		},
		{
			"a timeout", dial(os.ErrDeadlineExceeded), reason.NoAnswer,
			"a:1: the host does not answer (dial tcp 10.0.0.1:1: i/o timeout); check the address, that the host is up, and that no firewall drops the connection",
		},
		{
			"no address", status.Error(codes.Unavailable, "name resolver error: produced zero addresses"), reason.NoSuchHost,
			"a:1: the host name does not resolve (produced zero addresses); check the name and its DNS record",
		},
		{
			"an alert of unknown meaning", errors.New("transport: authentication handshake failed: remote error: tls: decrypt error"), reason.HandshakeFailure,
			"a:1: the server aborted the TLS handshake (remote error: tls: decrypt error); check its log: it may require a client certificate or other ciphers",
		},
		{
			"a web server", status.Error(codes.Unimplemented, "unexpected HTTP status code received from server: 404 (Not Found); transport: received unexpected content-type \"text/html\"\ndata: \"<html><head><title>404 Not\\u202e Found</title>\""), reason.HTTPAnswer,
			`a:1: it answers HTTP 404 (Not Found), not gRPC (unexpected HTTP status code received from server: 404 (Not Found), "404 Not\\u202e Found"); a web server or proxy answers there: check the host and port, and whether it routes this call to a gRPC server`,
		},
		{
			"a web server that wants a certificate", status.Error(codes.Internal, "unexpected HTTP status code received from server: 400 (Bad Request); transport: received unexpected content-type \"text/html\"\ndata: \"<html>\\r\\n<head><title>400 No required SSL certificate was sent</title></head>\""), reason.ClientCertificate,
			`a:1: the server refused the client certificate (unexpected HTTP status code received from server: 400 (Bad Request), "400 No required SSL certificate was sent"); configure a client certificate`,
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
			`a:1: the server's certificate is for another name (x509: certificate is valid for \u001b[2J\u202e\u009b31m\xff\u0007, not \udb40\udc41); dial a name in the certificate, or reissue it for this name`,
		},
		{
			"a handshake without an end", errors.New("10.0.0.1:1 accepted the connection and did not finish the handshake within 2.5s"), reason.NoHandshake,
			"a:1: 10.0.0.1:1 accepted the connection and did not finish the handshake within 2.5s; check that it speaks TLS and is running",
		},
		{
			"its status", status.Error(codes.Unavailable, `connection error: desc = "transport: authentication handshake failed: context deadline exceeded"`), reason.NoHandshake,
			`a:1: the server accepted the connection but did not finish the handshake (connection error: desc = "transport: authentication handshake failed: context deadline exceeded"); check that it speaks TLS and is running`,
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
			// Explaining the text again, as it stands in an RPC's status, adds nothing.
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
	// 10.0.0.1:443: the server's certificate is not signed by a trusted CA (x509: certificate signed by unknown authority); add its CA to the trusted roots, or check that this is the right server
}
