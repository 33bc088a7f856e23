package identity

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"slices"
)

// pin is the SHA-256 of a SubjectPublicKeyInfo (RFC 7469 section 2.4).
type pin [sha256.Size]byte

func parsePin(text string) (pin, error) {
	// A base64 text may begin with a slash, so the prefix is found by the length: it is
	// nothing, "sha256/" as in HTTP, or "sha256//" as in curl.
	cut := max(0, len(text)-base64.StdEncoding.EncodedLen(len(pin{})))
	hash, err := base64.StdEncoding.DecodeString(text[cut:])
	if err != nil || len(hash) != len(pin{}) || !slices.Contains([]string{"", "sha256/", "sha256//"}, text[:cut]) {
		return pin{}, fmt.Errorf("%q is not the base64 of a SHA-256 hash (RFC 7469 section 2.4)", text)
	}
	return pin(hash), nil
}

// verifier makes the checks of a handshake that follow the usual ones of the chain and the
// name.
type verifier struct {
	crls   *revocations // nil: not asked for
	pins   []pin
	verify []func(tls.ConnectionState) error
}

// connection is a tls.Config.VerifyConnection.
func (v *verifier) connection(state tls.ConnectionState) error {
	if err := v.crls.check(&state); err != nil {
		return refused(&state, err)
	}
	if err := v.checkPins(&state); err != nil {
		return refused(&state, err)
	}
	for _, verify := range v.verify {
		if err := verify(state); err != nil {
			return refused(&state, fmt.Errorf("WithVerifyConnection: %w", err))
		}
	}
	return nil
}

// refused names the certificate that is refused. Its name is the peer's text, so it is
// quoted.
func refused(state *tls.ConnectionState, why error) error {
	name := ""
	if len(state.PeerCertificates) > 0 {
		name = state.PeerCertificates[0].Subject.String()
	}
	return fmt.Errorf("identity: the server's certificate %q is refused: %w", name, why)
}

func (v *verifier) checkPins(state *tls.ConnectionState) error {
	if len(v.pins) == 0 {
		return nil
	}
	for _, chain := range state.VerifiedChains {
		for _, cert := range chain {
			if slices.Contains(v.pins, sha256.Sum256(cert.RawSubjectPublicKeyInfo)) {
				return nil
			}
		}
	}
	return fmt.Errorf("pin mismatch: no key in its chain is among the %d that WithPinnedKeys allows", len(v.pins))
}
