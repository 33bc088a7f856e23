package tap

import (
	"bytes"
	"errors"
	"fmt"
)

// What Cause, and the error that the transport gets, answer errors.Is for when
// what the peer says first is not HTTP/2.
var (
	ErrHTTP1    = errors.New("the peer speaks HTTP/1")    // a web server, or a proxy that takes no HTTP/2
	ErrTLS      = errors.New("the peer speaks TLS")       // and this side does not
	ErrNotHTTP2 = errors.New("the peer speaks no HTTP/2") // it speaks, whatever it is
)

// openingLen is how much of what a peer says first is kept until it turns out to
// be HTTP/2: enough for the beginning of an answer in HTTP/1.
const openingLen = 512

// opening is what came before the first SETTINGS. It is used by the goroutine that
// reads.
type opening struct {
	over bool   // the peer has shown what it speaks
	said []byte // at most openingLen; nil once it is over
}

// open looks at the first bytes of a connection, of which b are the latest. It
// returns why the connection must end, or nil.
func (c *conn) open(b []byte) error {
	o := &c.opening
	o.said = append(o.said, b[:min(len(b), openingLen-len(o.said))]...)
	switch {
	case c.link.settled.Load():
		o.end()
	case len(o.said) >= frameHeaderLen && o.said[3] != typeSettings, isTLS(o.said):
		err := foreign(o.said)
		c.link.ending.judge(err)
		o.end()
		return err
	}
	return nil
}

func (o *opening) end() { o.over, o.said = true, nil }

// openFailed is told that a read failed before the first SETTINGS. What came until
// then may be too short for a frame.
func (c *conn) openFailed() {
	o := &c.opening
	if len(o.said) > 0 && len(o.said) < frameHeaderLen && o.said[0] != 0 {
		c.link.ending.judge(foreign(o.said))
		o.end()
	}
}

// isTLS reports whether said is the beginning of a TLS record with an alert or a
// handshake (RFC 8446, section 5.1). As a frame it would be too long.
func isTLS(said []byte) bool {
	return len(said) > 1 && (said[0] == 0x15 || said[0] == 0x16) && said[1] == 3
}

// foreign says what a peer speaks that began with said.
func foreign(said []byte) error {
	switch {
	case bytes.HasPrefix(said, []byte("HTTP/")):
		line, _, _ := bytes.Cut(said, []byte("\r\n"))
		if bytes.Contains(said, []byte("HTTPS")) { // Go's net/http and nginx say so in the body
			return fmt.Errorf("tap: %w: it answered plaintext with %q and asks for HTTPS", ErrTLS, line)
		}
		return fmt.Errorf("tap: %w: it answered %q", ErrHTTP1, line)
	case isTLS(said):
		return fmt.Errorf("tap: %w: it answered plaintext with a TLS record", ErrTLS)
	default:
		return fmt.Errorf("tap: %w: its first bytes are %q", ErrNotHTTP2, said[:min(len(said), 32)])
	}
}
