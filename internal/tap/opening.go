package tap

import (
	"bytes"
	"errors"
	"fmt"
)

// One of these is matched, with errors.Is, by Cause and by the transport's error when the
// first bytes from the peer are not HTTP/2.
var (
	ErrHTTP1    = errors.New("the peer speaks HTTP/1")         // a web server, or a proxy without HTTP/2
	ErrTLS      = errors.New("the peer speaks TLS")            // and this side does not
	ErrNotHTTP2 = errors.New("the peer does not speak HTTP/2") // nor any of the above
)

// openingLen is how many of the first bytes are kept until it is clear whether they are
// HTTP/2. It is enough for the beginning of an answer in HTTP/1.
const openingLen = 512

// opening holds the bytes that came before the first SETTINGS. It is used by the goroutine
// that reads.
type opening struct {
	over  bool   // it is clear which protocol the peer speaks
	bytes []byte // at most openingLen; nil once over is true
}

// open examines the first bytes of a connection, of which b are the latest. It returns why
// the connection must be ended, or nil.
func (c *conn) open(b []byte) error {
	o := &c.opening
	o.bytes = append(o.bytes, b[:min(len(b), openingLen-len(o.bytes))]...)
	switch {
	case c.link.settled.Load():
		o.end()
	case len(o.bytes) >= frameHeaderLen && o.bytes[3] != typeSettings, isTLS(o.bytes):
		err := describePeer(o.bytes)
		c.link.ending.diagnose(err)
		o.end()
		return err
	}
	return nil
}

func (o *opening) end() { o.over, o.bytes = true, nil }

// openFailed is called when a read failed before the first SETTINGS. The bytes until then
// may be too few for a frame.
func (c *conn) openFailed() {
	o := &c.opening
	if len(o.bytes) > 0 && len(o.bytes) < frameHeaderLen && o.bytes[0] != 0 {
		c.link.ending.diagnose(describePeer(o.bytes))
		o.end()
	}
}

// isTLS reports whether first is the beginning of a TLS record with an alert or a handshake
// (RFC 8446, section 5.1). Read as an HTTP/2 frame it would be too long.
func isTLS(first []byte) bool {
	return len(first) > 1 && (first[0] == 0x15 || first[0] == 0x16) && first[1] == 3
}

// describePeer says which protocol a peer speaks whose first bytes these are.
func describePeer(first []byte) error {
	switch {
	case bytes.HasPrefix(first, []byte("HTTP/")):
		line, _, _ := bytes.Cut(first, []byte("\r\n"))
		if bytes.Contains(first, []byte("HTTPS")) { // as in the body that Go's net/http and nginx send
			return fmt.Errorf("tap: %w: it answered plaintext with %q and asks for HTTPS", ErrTLS, line)
		}
		return fmt.Errorf("tap: %w: it answered %q", ErrHTTP1, line)
	case isTLS(first):
		return fmt.Errorf("tap: %w: it answered plaintext with a TLS record", ErrTLS)
	default:
		return fmt.Errorf("tap: %w: its first bytes are %q", ErrNotHTTP2, first[:min(len(first), 32)])
	}
}
