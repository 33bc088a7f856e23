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
