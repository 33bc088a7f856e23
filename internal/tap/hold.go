package tap

import "encoding/binary"

// A server that ends a connection gracefully says so twice: first a GOAWAY that
// names no last stream, then, when streams on their way have arrived, one that
// does (RFC 9113, section 6.8). gRPC's transport takes no new stream after the
// first. A tap that holds it back lets the connection go on as if nothing had
// been said, until whoever was told has another one or the second GOAWAY comes,
// which is not held.
//
// gRPC's servers send a PING behind the first, and the second when it is answered
// or after 5 s. Held together with it, it makes them wait that long.

// goAwayPing is that PING's payload in grpc-go (and in Java's and C++'s gRPC, by
// other payloads, which are let through: the second GOAWAY then follows at once).
var goAwayPing = [8]byte{1, 6, 1, 8, 0, 3, 3, 9}

// hold is what a conn knows of what it holds. It is used by the goroutine that
// reads.
type hold struct {
	held bool // a GOAWAY, and so no further one
	ping bool // its PING has not come yet
}

// WithHold has the first GOAWAY of a graceful end held back: the transport does
// not see it, Events.GoAway does. One that comes in two pieces is let through. It
// must come before the State is used.
func (s *State) WithHold() *State {
	s.hold = true
	return s
}

// withhold feeds b to the parser and takes out of it what is held. It returns how
// many bytes are left.
func (c *conn) withhold(b []byte) (kept int) {
	for at := 0; at < len(b); {
		n, whole := c.parser.next(b[at:])
		if piece := b[at : at+n]; !whole || !c.holds(piece) {
			c.parser.feed(piece)
			kept += copy(b[kept:], piece)
		}
		at += n
	}
	return kept
}

// holds reports whether frame is to be held back.
func (c *conn) holds(frame []byte) bool {
	payload := frame[frameHeaderLen:]
	switch frame[3] {
	case typeGoAway:
		if c.hold.held || len(payload) < goAwayLen {
			return false
		}
		g := GoAway{
			LastStreamID: binary.BigEndian.Uint32(payload) & lastStreamIDMax,
			Code:         binary.BigEndian.Uint32(payload[4:]),
			Debug:        string(payload[goAwayLen:min(len(payload), goAwayLen+debugLen)]),
			Held:         true,
		}
		if !g.Graceful() {
			return false
		}
		c.hold = hold{held: true, ping: true}
		c.link.goAway(g)
		return true
	case typePing:
		if !c.hold.ping || len(payload) != len(goAwayPing) || frame[4]&flagAck != 0 || [8]byte(payload) != goAwayPing {
			return false
		}
		c.hold.ping = false
		return true
	default:
		return false
	}
}
