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

// entry is what is known of a kind.
type entry struct {
	kind   Kind
	what   string // is wrong
	advice string

	// says and advises, if set, make what is wrong, with what in it, and the advice
	// from an error's words.
	says, advises func(detail string) string

	find  func(error) error // the error in the chain that is of this kind, or nil
	words []string          // that tell the kind where the types are lost
	more  []advice          // better advice for some words
}

type advice struct{ words, advice string }

// adviceOn is the advice for an error of these words.
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

// entryOf returns what is known of the kind of err, or nil.
func entryOf(err error) *entry {
	e, _ := lookUp(err)
	return e
}

// entryOfKind returns what is known of a kind, or nil.
func entryOfKind(kind Kind) *entry {
	for i := range table {
		if table[i].kind == kind {
			return &table[i]
		}
	}
	return nil
}

// telling returns the error within err that tells its kind, or nil if that is
// told by words or not at all.
func telling(err error) error {
	_, inner := lookUp(err)
	return inner
}

func lookUp(err error) (*entry, error) {
	if err == nil {
		return nil, nil //nolint:nilnil // nothing is known of no error
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

// table is in the order of how much a kind tells: an error may be of several, such
// as an alert that came with a broken pipe.
var table = []entry{
	{
		kind: ClientCertificate, what: "the server refused the client certificate",
		advice: "see the server's log for what it wants",
		find: alerts("bad certificate", "unsupported certificate", "revoked certificate", "expired certificate",
			"unknown certificate", "unknown certificate authority", "access denied", "certificate required"),
		words: []string{
			"remote error: tls: bad certificate", "remote error: tls: unsupported certificate", "remote error: tls: revoked certificate",
			"remote error: tls: expired certificate", "remote error: tls: unknown certificate", "remote error: tls: access denied",
			"remote error: tls: certificate required",
			"No required SSL certificate was sent", "The SSL certificate error",
		},
		more: []advice{
			{"certificate required", "give the client one"},
			{"No required SSL certificate", "give the client one"},
			{"expired certificate", "renew it, or set the clocks right"},
			{"unknown certificate authority", "have it signed by an authority that the server trusts"},
			{"revoked certificate", "have a new one issued"},
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
		advice: "enable HTTP/2 there, or correct the port",
		find:   alerts("no application protocol"),
		words:  []string{"tls: no application protocol", "missing selected ALPN property", "unsupported ALPN", "server selected unadvertised ALPN"},
	},
	{
		kind: TLSVersion, what: "client and server have no version of TLS in common",
		advice: "update the server, or allow TLS 1.2 with WithMinTLSVersion",
		find:   alerts("protocol version not supported"),
		words:  []string{"tls: protocol version not supported", "tls: server selected unsupported protocol version"},
	},
	{
		kind: HandshakeFailure, what: "the server broke the TLS handshake off",
		advice: "see its log: it may want a client certificate, or other ciphers",
		find:   alerts("handshake failure", "insufficient security level", "illegal parameter", "decode error", "internal error"),
		words:  []string{"remote error: tls: "},
	},
	{
		kind: WrongName, what: "the server's certificate is for another name",
		advice: "dial a name that is in it, or have it issued for this one",
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
		kind: UnknownCA, what: "the server's certificate is not signed by an authority that is trusted here",
		advice: "add the server's CA to the roots, or see whether this is the right server",
		find:   typed[x509.UnknownAuthorityError],
		words:  []string{"certificate signed by unknown authority", "x509: certificate is not trusted"},
	},
	{
		kind: ServerExpired, what: "the server's certificate is not valid at this time",
		advice: "renew it, or set the clock of this machine",
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
		advice: "have it issued as a server certificate by an authority that is trusted here",
		find:   typed[*tls.CertificateVerificationError],
		words:  []string{"tls: failed to verify certificate"},
	},
	{
		kind: PlaintextServer, what: "the server does not speak TLS",
		advice: "give the server TLS, use plaintext credentials here, or correct the port",
		find:   typed[tls.RecordHeaderError],
		words:  []string{"first record does not look like a TLS handshake"},
	},
	{
		kind: TLSServer, what: "the server speaks TLS and this client does not",
		advice: "use TLS credentials, or correct the port",
		find:   is(tap.ErrTLS),
		words:  []string{tap.ErrTLS.Error()},
	},
	{
		kind: HTTP1, what: "the server speaks HTTP/1 and not HTTP/2",
		advice: "correct the port, or have the proxy there pass HTTP/2 on",
		find:   is(tap.ErrHTTP1),
		words:  []string{tap.ErrHTTP1.Error(), "looked like an HTTP/1.1 header"},
	},
	{
		kind: NotHTTP2, what: "the server does not speak HTTP/2",
		advice: "correct the host and port",
		find:   is(tap.ErrNotHTTP2),
		words:  []string{tap.ErrNotHTTP2.Error(), "initial http2 frame from server is not a settings frame"},
	},
	{
		kind: NoSettings, what: "accepted the connection and did not begin HTTP/2",
		advice: "see whether it is a gRPC server, and whether it is alive behind its proxy",
		words:  []string{"did not begin HTTP/2 (no SETTINGS)"},
	},
	{
		kind: NoHandshake, what: "accepted the connection and did not finish the handshake",
		advice: "see whether it speaks TLS, and whether it is alive",
		words:  []string{"did not finish the handshake", "authentication handshake failed: context deadline exceeded"},
	},
	{
		kind: Flood, what: "the server flooded the connection",
		advice: "see to the server",
		find:   is(tap.ErrFlood),
		words:  []string{tap.ErrFlood.Error()},
	},
	{
		kind: NoSuchHost, what: "there is no such host",
		advice: "correct the name, or see to its DNS record",
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
		kind: NoSuchSocket, what: "there is no such socket",
		advice: "start the server, or correct the path",
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
		kind: ConnectionRefused, what: "nobody listens there",
		advice: "start the server, or correct the host and port",
		find:   dialled(syscall.ECONNREFUSED),
		words:  []string{"connection refused"},
	},
	{
		kind: Unreachable, what: "there is no way to it through the network",
		advice: "see to the network between here and there, or correct the address",
		find:   dialled(syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN, syscall.EADDRNOTAVAIL),
		words:  []string{"no route to host", "network is unreachable", "network is down", "host is down", "cannot assign requested address"},
	},
	{
		kind: NoAnswer, what: "it does not answer",
		advice: "see whether the host is up, and whether a firewall drops what is sent there",
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
		kind: HungUp, what: "the server closed the connection before HTTP/2 had begun",
		advice: "see whether it wants TLS, whether a proxy stands before it, and its log",
		words: []string{
			"error reading server preface", "failed to write client preface", "authentication handshake failed: EOF",
			"authentication handshake failed: read tcp", "authentication handshake failed: write tcp", "closed the connection as soon as it was established",
		},
	},
}

// is finds an error that answers errors.Is for target.
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

// alerts finds an alert of the peer's TLS that says one of the words. crypto/tls
// has no exported type for what the peer sent, but gives it an operation.
func alerts(words ...string) func(error) error {
	return func(err error) error {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "remote error" && slices.Contains(words, strings.TrimPrefix(op.Err.Error(), "tls: ")) {
			return op
		}
		return nil
	}
}

// opDial is the operation of net's errors of a dial.
const opDial = "dial"

// dialled finds the failure of a dial for one of the numbers.
func dialled(numbers ...syscall.Errno) func(error) error {
	return func(err error) error {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == opDial && slices.ContainsFunc(numbers, func(n syscall.Errno) bool { return errors.Is(op, n) }) {
			return op
		}
		return nil
	}
}
