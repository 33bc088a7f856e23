package tap

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"time"
)

// What Cause, and the error that the transport gets, answer errors.Is for when
// HTTP/2 has not begun.
var (
	ErrNoHandshake = errors.New("the handshake did not end") // see HandshakeWithin
	ErrNoSettings  = errors.New("no HTTP/2 SETTINGS came")   // see SettingsWithin
	ErrHTTP1       = errors.New("the peer speaks HTTP/1")    // a web server, or a proxy that takes no HTTP/2
	ErrTLS         = errors.New("the peer speaks TLS")       // and this side does not
	ErrNotHTTP2    = errors.New("the peer speaks no HTTP/2") // it speaks, whatever it is
)

// Option changes what a State does with its connections.
type Option func(*State)

// SettingsWithin bounds the time from the end of the handshake to the server's
// first SETTINGS. A connection that stays without them is given up with a cause
// that answers errors.Is for ErrNoSettings. grpc-go waits for them as long as a
// whole connection attempt may take, 20 s; but they are the first thing that a
// server writes (RFC 9113, section 3.4) and need one round trip. The time that the
// dial and the handshake take does not count. d <= 0, the default: no bound.
func SettingsWithin(d time.Duration) Option {
	return func(s *State) { s.settingsWithin = d }
}

// HandshakeWithin bounds the time that a handshake may take, below what grpc-go
// allows a whole connection attempt. It fails with an error that answers errors.Is
// for ErrNoHandshake. A busy server takes its time over a handshake: a bound of a
// second or two fails those that would have succeeded. d <= 0, the default: no
// bound.
func HandshakeWithin(d time.Duration) Option {
	return func(s *State) { s.handshakeWithin = d }
}

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
		c.liftDeadline()
	case len(o.said) >= frameHeaderLen && o.said[3] != typeSettings, isTLS(o.said):
		err := foreign(o.said)
		c.link.ending.judge(err)
		o.end()
		return err
	}
	return nil
}

func (o *opening) end() { o.over, o.said = true, nil }

// openFailed is told that a read failed before the first SETTINGS, and returns
// the error with which the connection ends.
func (c *conn) openFailed(err error) error {
	o, within := &c.opening, c.link.state.settingsWithin
	var timeout net.Error
	switch {
	case len(o.said) > 0 && len(o.said) < frameHeaderLen && o.said[0] != 0: // too short for a frame; a TLS alert is
		c.link.ending.judge(foreign(o.said))
		o.end()
	case within > 0 && errors.As(err, &timeout) && timeout.Timeout() && time.Since(c.link.start) >= within && !c.link.holed.Load():
		o.end()
		err = fmt.Errorf("tap: %w within %v of the handshake: is this a gRPC server?", ErrNoSettings, within)
		c.link.ending.judge(err)
	}
	return err
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

// setDeadline bounds the wait for the first SETTINGS.
func (c *conn) setDeadline() {
	if d := c.link.state.settingsWithin; d > 0 {
		_ = c.SetReadDeadline(c.link.start.Add(d)) // fails on a closed connection, as will the first read
	}
}

// liftDeadline ends the bound, unless a failed write has put its own in place.
func (c *conn) liftDeadline() {
	c.link.deadline.Lock()
	defer c.link.deadline.Unlock()
	if c.link.state.settingsWithin > 0 && !c.link.holed.Load() {
		_ = c.SetReadDeadline(time.Time{})
	}
}
