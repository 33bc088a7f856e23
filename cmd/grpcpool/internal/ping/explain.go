package ping

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/davidwartell/go-grpcpool/internal/reason"
)

var errNoHTTP2 = errors.New("the server does not offer HTTP/2 in the TLS handshake (ALPN)")

// flags are the flags of the command that help against a problem.
var flags = map[reason.Kind]string{
	reason.UnknownCA:         "--ca",
	reason.WrongName:         "--authority",
	reason.ClientCertificate: "--cert, --key",
	reason.HandshakeFailure:  "--cert, --key",
	reason.PlaintextServer:   "--plaintext",
	reason.TLSVersion:        "--tls12",
}

// Explain returns one line that says why a connection failed and what to do.
func Explain(err error) string {
	if hungUp := errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET); hungUp && reason.Of(err) == reason.Unknown {
		err = fmt.Errorf("error reading server preface: %w", err) // gRPC's own text
	}
	text := reason.Explain("", err).Error()
	switch kind := reason.Of(err); {
	case kind == reason.TLSServer:
		text += " (leave out --plaintext)"
	case flags[kind] != "":
		text += " (see " + flags[kind] + ")"
	}
	return text
}
