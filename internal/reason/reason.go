// Package reason says in one line why a connection could not be had: what is
// wrong, the words of whoever found out, and what to do about it.
//
// The error that a dial ends with has passed through many hands: the kernel's or
// crypto/tls's words, within grpc-go's "connection error: desc = ...", within an
// LB policy's. [Explain] looks for the one that knows, by type where the types
// have survived and by its words where they have not, as in the status of an RPC.
package reason

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc/status"
)

// Kind is what was wrong.
type Kind string

// What can be wrong.
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
	Addr string // where, such as "10.0.0.1:443"; "" if that is not known
	Err  error  // what it was made from
}

// Explain returns err with an explanation, for a connection to addr, which may be
// "": an *Error. An err that holds one comes back as it is, and nil as nil.
func Explain(addr string, err error) error {
	if err == nil {
		return nil
	}
	if errors.As(err, new(*Error)) {
		return err
	}
	return &Error{Kind: Of(err), Addr: addr, Err: err}
}

// ByServer returns err, the status of an RPC that the server itself has answered. Its
// words are the server's: whatever they sound like, they say nothing about the
// connection to it, and are not explained.
func ByServer(err error) error { return &Error{Kind: Unknown, Err: err} }

// Of is what err says is wrong.
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
//	10.0.0.1:443: the server refused the client certificate (remote error: tls: certificate required); give the client one
//
// with the words of grpc-go's transport in place of the inner ones if it has spoken.
func (e *Error) Error() string {
	text := withWords(explanation(Detail(e.Err), entryOfKind(e.Kind)), e.Err)
	if e.Addr == "" || strings.HasPrefix(text, e.Addr) {
		return text
	}
	return e.Addr + ": " + text
}

// explanation puts together what is known of a kind and the words that were found,
// unless these hold it already.
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

// Unwrap returns what was explained.
func (e *Error) Unwrap() error { return e.Err }

// Detail is err's text without the frames that grpc-go puts around it, and without the
// page of a web server, in one line and escaped.
func Detail(err error) string {
	text := err.Error()
	if inner := telling(err); inner != nil {
		text = inner.Error()
	} else if st, ok := status.FromError(err); ok {
		text = st.Message()
	}
	return OneLine(withoutPage(unframe(text)))
}

// frames are what stands before the words of whoever found out.
var frames = []string{
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

// unframe takes the frames off. What package tap has found out stands behind the
// rest, in parentheses, and says more than it.
func unframe(text string) string {
	for {
		before := text
		if i := strings.LastIndex(text, " (tap: "); i >= 0 && strings.HasSuffix(text, ")") {
			text = text[i+len(" (") : len(text)-1]
		}
		for _, frame := range frames {
			text = strings.TrimPrefix(text, frame)
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

// maxDetail bounds what is quoted of an error whose text may be the peer's.
const maxDetail = 400

func cut(text string) string {
	if len(text) <= maxDetail {
		return text
	}
	return strings.ToValidUTF8(text[:maxDetail], "") + fmt.Sprintf("... (%d bytes)", len(text))
}
