package ping

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

var errNoHTTP2 = errors.New("the server does not speak HTTP/2")

// Explain says why a connection to a server failed, in one line, and what to do.
func Explain(err error) string {
	for _, explain := range []func(error) string{ofCertificate, ofAlert, ofProtocol, ofNetwork} {
		if text := explain(err); text != "" {
			return text
		}
	}
	return err.Error()
}

// ofCertificate is about the server's certificate, as seen from here.
func ofCertificate(err error) string {
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		issuer := "an authority that is not trusted here"
		if e.Cert != nil {
			issuer = fmt.Sprintf("%q, who is not trusted here", e.Cert.Issuer)
		}
		return "the server's certificate is signed by " + issuer + ": give the right authority with --ca"
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		names := describe(e.Certificate).Names
		if len(names) == 0 {
			names = []string{"no host"}
		}
		return fmt.Sprintf("the server's certificate is for %s, not for %q: use a target it names, or --authority", strings.Join(names, ", "), e.Host)
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if e.Reason == x509.Expired && e.Cert != nil {
			if time.Now().Before(e.Cert.NotBefore) {
				return fmt.Sprintf("the server's certificate is not valid before %s: check both clocks", e.Cert.NotBefore.UTC().Format(time.RFC3339))
			}
			return fmt.Sprintf("the server's certificate expired at %s: it needs a new one", e.Cert.NotAfter.UTC().Format(time.RFC3339))
		}
		return fmt.Sprintf("the server's certificate is not valid: %v", e)
	}
	return ""
}

func isAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// alerts are what servers say of a client, by crypto/tls's words for them
// (RFC 8446, section 6.2), and what to do. A part of the text is looked for, since
// gRPC passes errors on as text.
var alerts = []struct{ alert, says string }{
	{"tls: certificate required", "the server wants a client certificate and none was shown: give --cert, --key and --ca"},
	{"tls: bad certificate", "the server refused the client certificate: is --cert from an authority that it trusts, and for client authentication?"},
	{"tls: unknown certificate authority", "the server does not trust the authority that signed the client certificate: is --cert the one for this server?"},
	{"tls: expired certificate", "the server says that the client certificate has expired: renew --cert"},
	{"tls: revoked certificate", "the server says that the client certificate is revoked: --cert needs a new one"},
	{"tls: unknown certificate", "the server refused the client certificate without a reason"},
	{"tls: unsupported certificate", "the server cannot use this kind of client certificate"},
	{"tls: access denied", "the server refused the client certificate's owner"},
	{"tls: handshake failure", "the server and this client have no TLS parameters in common, or it wants a client certificate: see --cert"},
	{"tls: protocol version not supported", "the server does not speak TLS 1.3: --tls12 accepts 1.2"},
	{"tls: server selected unsupported protocol version", "the server does not speak TLS 1.3: --tls12 accepts 1.2"},
	{"tls: no application protocol", "the server does not offer HTTP/2 (ALPN h2): is it a gRPC server?"},
	{"tls: unrecognized name", "the server knows no host of this name: see --authority"},
	{"tls: internal error", "the server's TLS failed: its log may say why"},
}

func ofAlert(err error) string {
	text := err.Error()
	for _, a := range alerts {
		if strings.Contains(text, a.alert) {
			return a.says
		}
	}
	return ""
}

func ofProtocol(err error) string {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || strings.Contains(err.Error(), "first record does not look like a TLS handshake") {
		return "the server does not speak TLS on this port: use --plaintext, or another port"
	}
	if errors.Is(err, errNoHTTP2) {
		return "the server speaks TLS but not HTTP/2 (ALPN h2): is it a gRPC server?"
	}
	text := err.Error()
	if strings.Contains(text, "HTTP/1.") || strings.Contains(text, "frame too large") || strings.Contains(text, "began HTTP/2 with") {
		return "the server does not speak HTTP/2 on this port: is it a gRPC server, and without TLS?"
	}
	return ""
}

func ofNetwork(err error) string {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		if e.IsNotFound {
			return fmt.Sprintf("there is no host %q: check its spelling", e.Name)
		}
		return fmt.Sprintf("the name %q could not be resolved: %s", e.Name, e.Err)
	}
	text := err.Error()
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), strings.Contains(text, "connection refused"):
		return "nothing listens there (connection refused): is the server running, and is this its port?"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "there is no way to the server (unreachable): check the network"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "no answer in time: " + text
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "the server closed the connection without a word: does it want TLS (no --plaintext), or is a proxy in between?"
	}
	return ""
}
