package tap_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

func TestAPeerThatSpeaksSomethingElseIsTheCause(t *testing.T) {
	for name, tc := range map[string]struct {
		says string
		want error
		text string
	}{
		"HTTP/1":              {"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n", tap.ErrHTTP1, `tap: the peer speaks HTTP/1: it answered "HTTP/1.1 400 Bad Request"`},
		"a TLS alert":         {"\x15\x03\x01\x00\x02\x02\x46", tap.ErrTLS, "tap: the peer speaks TLS: it answered plaintext with a TLS record"},
		"SSH":                 {"SSH-2.0-OpenSSH_9.6\r\n", tap.ErrNotHTTP2, `tap: the peer does not speak HTTP/2: its first bytes are "SSH-2.0-OpenSSH_9.6\r\n"`},
		"two bytes":           {"no", tap.ErrNotHTTP2, `tap: the peer does not speak HTTP/2: its first bytes are "no"`},
		"very much":           {strings.Repeat("x", 1<<12), tap.ErrNotHTTP2, `tap: the peer does not speak HTTP/2: its first bytes are "` + strings.Repeat("x", 32) + `"`},
		"the end":             {"", io.EOF, "tap: closed by the peer: EOF"},
		"a part of SETTINGS":  {"\x00\x00\x06\x04\x00", io.EOF, "tap: closed by the peer: EOF"},
		"SETTINGS, and noise": {"\x00\x00\x00\x04\x00\x00\x00\x00\x00HTTP/1.1", io.EOF, "tap: closed by the peer: EOF"},
	} {
		for _, size := range []int{1, 1 << 10} {
			t.Run(name, func(t *testing.T) {
				s := tap.New(tap.Events{})
				peer := script{readErr: io.EOF}
				peer.in.WriteString(tc.says)
				conn := s.Wrap(&peer, nil)
				for {
					if _, err := conn.Read(make([]byte, size)); err != nil {
						break
					}
				}
				got := s.Cause()
				if size == 1 && len(tc.says) > 9 && errors.Is(got, tc.want) {
					return // it was decided by the first nine bytes
				}
				if !errors.Is(got, tc.want) || got.Error() != tc.text {
					t.Errorf("in pieces of %d: Cause() = %v, want %s", size, got, tc.text)
				}
			})
		}
	}
}
