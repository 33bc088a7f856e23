// Package reason explains in one line why a connection failed: what is wrong, the
// original error, and what to do about it.
//
//	_, err := stub.SayHello(ctx, request)
//	fmt.Println(reason.Explain("10.0.0.1:443", err))
//	// 10.0.0.1:443: nothing is listening at that address (dial tcp 10.0.0.1:443:
//	// connect: connection refused); check the address, or start the server
//
// The error of a dial is wrapped several times: the kernel's or crypto/tls's error, in
// grpc-go's "connection error: desc = ...", in an LB policy's. [Explain] finds the
// cause by its type, or by its text where the types are lost, as in the status of an
// RPC.
package reason

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc/status"
)

// Kind says what is wrong.
type Kind string

// The kinds.
const (
	Unknown           Kind = ""
	ConnectionRefused Kind = "connection refused"
	NoSuchHost        Kind = "no such host"
	NoSuchSocket      Kind = "no such socket"
	Unreachable       Kind = "unreachable"
	NoAnswer          Kind = "no answer"
	ClientCertificate Kind = "client certificate refused"
	UnknownCA         Kind = "unknown authority"
	ServerExpired     Kind = "server certificate expired"
	WrongName         Kind = "wrong name"
	ServerCertificate Kind = "server certificate not accepted"
	PlaintextServer   Kind = "plaintext server"
	TLSServer         Kind = "TLS server"
	HTTP1             Kind = "HTTP/1"
	NotHTTP2          Kind = "not HTTP/2"
	NoALPN            Kind = "no ALPN"
	TLSVersion        Kind = "TLS version"
	HandshakeFailure  Kind = "handshake failure"
	NoHandshake       Kind = "handshake not finished"
	NoSettings        Kind = "no SETTINGS"
	HungUp            Kind = "hung up"
	Flood             Kind = "flood"
	HTTPAnswer        Kind = "HTTP answer"
	ProxyRefused      Kind = "proxy refused"
)

// Error is an error with its explanation.
type Error struct {
	Kind Kind
	Addr string // the address, such as "10.0.0.1:443"; "" if it is not known
	Err  error  // the error that is explained
}

// Explain returns err with an explanation, as an *Error. addr is the address of the
// connection, "" if it is not known. An err that already contains an *Error is
// returned as it is, and nil as nil.
func Explain(addr string, err error) error {
	if err == nil {
		return nil
	}
	if errors.As(err, new(*Error)) {
		return err
	}
	return &Error{Kind: Of(err), Addr: addr, Err: err}
}

// ByServer marks err as a status that the server itself sent, so that it is not
// explained: whatever its text sounds like, it says nothing about the connection to
// the server.
func ByServer(err error) error { return &Error{Kind: Unknown, Err: err} }

// Of returns the kind of err.
func Of(err error) Kind {
	var known *Error
	if errors.As(err, &known) {
		return known.Kind
	}
	if e := entryOf(err); e != nil {
		return e.kind
	}
	return Unknown
}

// Error is one line, such as
//
//	10.0.0.1:443: the server refused the client certificate (remote error: tls: certificate required); configure a client certificate
//
// If err contains an error of grpc-go's transport, its text stands in the parentheses.
func (e *Error) Error() string {
	text := withWords(explanation(Detail(e.Err), entryOfKind(e.Kind)), e.Err)
	if e.Addr == "" || strings.HasPrefix(text, e.Addr) {
		return text
	}
	return e.Addr + ": " + text
}

// explanation combines an entry with the text of the error. It leaves out what the
// text contains already.
func explanation(detail string, e *entry) string {
	if e == nil {
		return cut(detail)
	}
	text := detail
	if !strings.Contains(detail, e.what) {
		text = e.what
		if e.says != nil {
			text = e.says(detail)
		}
		if detail != "" {
			text += " (" + cut(detail) + ")"
		}
	}
	if advice := e.adviceOn(detail); !strings.Contains(detail, advice) {
		text += "; " + advice
	}
	return text
}

// Unwrap returns the error that is explained.
func (e *Error) Unwrap() error { return e.Err }

// Detail returns err's text in one line, escaped, without the prefixes that grpc-go
// puts before it and without a web server's page.
func Detail(err error) string {
	text := err.Error()
	if inner := typedCause(err); inner != nil {
		text = inner.Error()
	} else if st, ok := status.FromError(err); ok {
		text = st.Message()
	}
	return OneLine(withoutPage(unwrapText(text)))
}

// prefixes are put before the original text by the layers above it.
var prefixes = []string{
	"transport: Error while dialing: ",
	"transport: error while dialing: ",
	"transport: authentication handshake failed: ",
	"transport: ",
	"error reading server preface: ",
	"last connection error: ",
	"last resolver error: ",
	"name resolver error: ",
	"tls: failed to verify certificate: ",
	"tap: ",
	"scale: ",
	"ping: ",
	"refused by the peer: ",
}

// unwrapText removes the prefixes. Package tap appends what it has found in
// parentheses; that says more than the rest, and replaces it.
func unwrapText(text string) string {
	for {
		before := text
		if i := strings.LastIndex(text, " (tap: "); i >= 0 && strings.HasSuffix(text, ")") {
			text = text[i+len(" (") : len(text)-1]
		}
		for _, prefix := range prefixes {
			text = strings.TrimPrefix(text, prefix)
		}
		if rest, ok := strings.CutPrefix(text, "connection error: desc = "); ok {
			if quoted, err := strconv.QuotedPrefix(rest); err == nil {
				inner, _ := strconv.Unquote(quoted)
				text = inner + rest[len(quoted):]
			}
		}
		if text == before {
			return text
		}
	}
}

// maxDetail is how much of an error is quoted, in bytes. Its text may be the peer's.
const maxDetail = 400

func cut(text string) string {
	if len(text) <= maxDetail {
		return text
	}
	return strings.ToValidUTF8(text[:maxDetail], "") + fmt.Sprintf("... (%d bytes)", len(text))
}
