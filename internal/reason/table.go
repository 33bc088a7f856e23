package reason

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// entry describes a kind.
type entry struct {
	kind   Kind
	what   string // what is wrong; also marks a text that has been explained already
	advice string // what to do about it

	// says and advises, if set, build the explanation, which contains what, and the
	// advice from the text of the error.
	says, advises func(detail string) string

	find  func(error) error // returns the error in the chain that is of this kind, or nil
	words []string          // identify the kind where the types are lost
	more  []advice          // better advice for texts with certain words
}

type advice struct{ words, advice string }

// adviceOn returns the advice for an error with this text.
func (e *entry) adviceOn(detail string) string {
	if e.advises != nil {
		return e.advises(detail)
	}
	for _, m := range e.more {
		if strings.Contains(detail, m.words) {
			return m.advice
		}
	}
	return e.advice
}

// entryOf returns the table's entry for err, or nil.
func entryOf(err error) *entry {
	e, _ := lookUp(err)
	return e
}

// entryOfKind returns the table's entry for a kind, or nil.
func entryOfKind(kind Kind) *entry {
	for i := range table {
		if table[i].kind == kind {
			return &table[i]
		}
	}
	return nil
}

// typedCause returns the error within err whose type tells the kind, or nil if only
// its text does, or nothing.
func typedCause(err error) error {
	_, inner := lookUp(err)
	return inner
}

func lookUp(err error) (*entry, error) {
	if err == nil {
		return nil, nil //nolint:nilnil // no error has no kind
	}
	for i := range table {
		if find := table[i].find; find != nil {
			if inner := find(err); inner != nil {
				return &table[i], inner
			}
		}
	}
	text := err.Error()
	for i := range table { // explained already
		if strings.Contains(text, table[i].what) {
			return &table[i], nil
		}
	}
	for i := range table {
		for _, words := range table[i].words {
			if strings.Contains(text, words) {
				return &table[i], nil
			}
		}
	}
	return nil, nil //nolint:nilnil // see above
}

// table starts with the kinds that tell most: an error may match several, such as an
// alert that came with a broken pipe.
var table = []entry{
	{
		kind: ClientCertificate, what: "the server refused the client certificate",
		advice: "check the server's log for the reason",
		find: alerts("bad certificate", "unsupported certificate", "revoked certificate", "expired certificate",
			"unknown certificate", "unknown certificate authority", "access denied", "certificate required"),
		words: []string{
			"remote error: tls: bad certificate", "remote error: tls: unsupported certificate", "remote error: tls: revoked certificate",
			"remote error: tls: expired certificate", "remote error: tls: unknown certificate", "remote error: tls: access denied",
			"remote error: tls: certificate required",
			"No required SSL certificate was sent", "The SSL certificate error",
		},
		more: []advice{
			{"certificate required", "configure a client certificate"},
			{"No required SSL certificate", "configure a client certificate"},
			{"expired certificate", "renew it, or correct the clocks"},
			{"unknown certificate authority", "use one signed by a CA that the server trusts"},
			{"revoked certificate", "issue a new one"},
		},
	},
	{
		kind: HTTPAnswer, what: ", not gRPC (" + httpWords,
		says: saysHTTP, advises: adviceOnHTTP,
		words: []string{httpWords},
	},
	{
		kind: ProxyRefused, what: "the HTTP proxy refused the connection",
		advice: "check HTTPS_PROXY and NO_PROXY",
		words:  []string{connectWords},
	},
	{
		kind: NoALPN, what: "the server does not offer HTTP/2 in the TLS handshake (ALPN)",
		advice: "enable HTTP/2 on the server, or check the port",
		find:   alerts("no application protocol"),
		words:  []string{"tls: no application protocol", "missing selected ALPN property", "unsupported ALPN", "server selected unadvertised ALPN"},
	},
	{
		kind: TLSVersion, what: "client and server have no TLS version in common",
		advice: "update the server, or allow TLS 1.2 with WithMinTLSVersion",
		find:   alerts("protocol version not supported"),
		words:  []string{"tls: protocol version not supported", "tls: server selected unsupported protocol version"},
	},
	{
		kind: HandshakeFailure, what: "the server aborted the TLS handshake",
		advice: "check its log: it may require a client certificate or other ciphers",
		find:   alerts("handshake failure", "insufficient security level", "illegal parameter", "decode error", "internal error"),
		words:  []string{"remote error: tls: "},
	},
	{
		kind: WrongName, what: "the server's certificate is for another name",
		advice: "dial a name in the certificate, or reissue it for this name",
		find: func(err error) error {
			var e x509.HostnameError
			if errors.As(err, &e) {
				return e
			}
			return alerts("unrecognized name")(err)
		},
		words: []string{"x509: certificate is valid for", "x509: certificate is not valid for any names", "doesn't contain any IP SANs", "remote error: tls: unrecognized name", "relies on legacy Common Name"},
	},
	{
		kind: UnknownCA, what: "the server's certificate is not signed by a trusted CA",
		advice: "add its CA to the trusted roots, or check that this is the right server",
		find:   typed[x509.UnknownAuthorityError],
		words:  []string{"certificate signed by unknown authority", "x509: certificate is not trusted"},
	},
	{
		kind: ServerExpired, what: "the server's certificate is not valid at this time",
		advice: "renew it, or correct this machine's clock",
		find: func(err error) error {
			var e x509.CertificateInvalidError
			if errors.As(err, &e) && e.Reason == x509.Expired {
				return e
			}
			return nil
		},
		words: []string{"certificate has expired or is not yet valid"},
	},
	{
		kind: ServerCertificate, what: "the server's certificate is not accepted",
		advice: "use a server certificate signed by a trusted CA",
		find:   typed[*tls.CertificateVerificationError],
		words:  []string{"tls: failed to verify certificate"},
	},
	{
		kind: PlaintextServer, what: "the server does not speak TLS",
		advice: "enable TLS on the server, use plaintext credentials here, or check the port",
		find:   typed[tls.RecordHeaderError],
		words:  []string{"first record does not look like a TLS handshake"},
	},
	{
		kind: TLSServer, what: "the server speaks TLS, but this client does not",
		advice: "use TLS credentials, or check the port",
		find:   is(tap.ErrTLS),
		words:  []string{tap.ErrTLS.Error()},
	},
	{
		kind: HTTP1, what: "the server speaks HTTP/1, not HTTP/2",
		advice: "check the port, or make the proxy forward HTTP/2",
		find:   is(tap.ErrHTTP1),
		words:  []string{tap.ErrHTTP1.Error(), "looked like an HTTP/1.1 header"},
	},
	{
		kind: NotHTTP2, what: "the server does not speak HTTP/2",
		advice: "check the host and port",
		find:   is(tap.ErrNotHTTP2),
		words:  []string{tap.ErrNotHTTP2.Error(), "initial http2 frame from server is not a settings frame"},
	},
	{
		kind: NoSettings, what: "did not begin HTTP/2 (no SETTINGS)",
		says: func(string) string {
			return "the server accepted the connection but did not begin HTTP/2 (no SETTINGS)"
		},
		advice: "check that it is a gRPC server, and that it is running behind its proxy",
	},
	{
		kind: NoHandshake, what: "did not finish the handshake",
		says:   func(string) string { return "the server accepted the connection but did not finish the handshake" },
		advice: "check that it speaks TLS and is running",
		words:  []string{"authentication handshake failed: context deadline exceeded"},
	},
	{
		kind: Flood, what: "the server flooded the connection",
		advice: "check the server",
		find:   is(tap.ErrFlood),
		words:  []string{tap.ErrFlood.Error()},
	},
	{
		kind: NoSuchHost, what: "the host name does not resolve",
		advice: "check the name and its DNS record",
		find: func(err error) error {
			var e *net.DNSError
			if errors.As(err, &e) && e.IsNotFound {
				return e
			}
			return nil
		},
		words: []string{"no such host", "produced zero addresses"},
	},
	{
		kind: NoSuchSocket, what: "the socket does not exist",
		advice: "check the path, or start the server",
		find: func(err error) error {
			var op *net.OpError
			if errors.As(err, &op) && op.Op == opDial && errors.Is(op, fs.ErrNotExist) {
				return op
			}
			return nil
		},
		words: []string{"connect: no such file or directory"},
	},
	{
		kind: ConnectionRefused, what: "nothing is listening at that address",
		advice: "check the address, or start the server",
		find:   dialled(syscall.ECONNREFUSED),
		words:  []string{"connection refused"},
	},
	{
		kind: Unreachable, what: "network unreachable",
		advice: "check the network and the address",
		find:   dialled(syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN, syscall.EADDRNOTAVAIL),
		words:  []string{"no route to host", "network is unreachable", "network is down", "host is down", "cannot assign requested address"},
	},
	{
		kind: NoAnswer, what: "the host does not answer",
		advice: "check the address, that the host is up, and that no firewall drops the connection",
		find: func(err error) error {
			var op *net.OpError
			if errors.As(err, &op) && op.Op == opDial && (op.Timeout() || errors.Is(op, context.DeadlineExceeded) || errors.Is(op, os.ErrDeadlineExceeded)) {
				return op
			}
			return nil
		},
		words: []string{"connect: connection timed out", "i/o timeout", "no answer within"},
	},
	{
		kind: HungUp, what: "the server closed the connection before HTTP/2 began",
		advice: "check its log, whether it expects TLS, and whether a proxy is in front of it",
		words: []string{
			"error reading server preface", "failed to write client preface", "authentication handshake failed: EOF",
			"authentication handshake failed: read tcp", "authentication handshake failed: write tcp", "closed the connection as soon as it",
		},
	},
}

// is finds an error that matches target with errors.Is.
func is(target error) func(error) error {
	return func(err error) error {
		if !errors.Is(err, target) {
			return nil
		}
		return outermost(err, func(e error) bool { return strings.HasPrefix(e.Error(), "tap: ") && errors.Is(e, target) }, target)
	}
}

// outermost returns the first error of the chain that ok accepts, or otherwise.
func outermost(err error, ok func(error) bool, otherwise error) error {
	if ok(err) {
		return err
	}
	switch w := err.(type) { //nolint:errorlint // this walks the chain
	case interface{ Unwrap() error }:
		if inner := w.Unwrap(); inner != nil {
			return outermost(inner, ok, otherwise)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range w.Unwrap() {
			if found := outermost(inner, ok, nil); found != nil {
				return found
			}
		}
	}
	return otherwise
}

// typed finds an error of type E.
func typed[E error](err error) error {
	var e E
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// alerts finds a TLS alert of the peer with one of these texts. crypto/tls exports no
// type for an alert, but wraps it in an OpError with an operation of its own.
func alerts(words ...string) func(error) error {
	return func(err error) error {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "remote error" && slices.Contains(words, strings.TrimPrefix(op.Err.Error(), "tls: ")) {
			return op
		}
		return nil
	}
}

// opDial is the Op of a net.OpError from a dial.
const opDial = "dial"

// dialled finds a dial that failed with one of these errnos.
func dialled(numbers ...syscall.Errno) func(error) error {
	return func(err error) error {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == opDial && slices.ContainsFunc(numbers, func(n syscall.Errno) bool { return errors.Is(op, n) }) {
			return op
		}
		return nil
	}
}
