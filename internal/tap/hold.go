package tap

import "encoding/binary"

// A server that ends a connection gracefully sends two GOAWAYs: the first names no last
// stream, the second, when streams in flight have arrived, does (RFC 9113, section 6.8).
// gRPC's transport opens no stream after the first. If the tap holds the first back, the
// connection stays in use until its replacement is ready, or until the second GOAWAY,
// which is not held back.
//
// gRPC's servers send a PING after the first GOAWAY, and the second GOAWAY when the PING is
// answered or after 5 s. The PING is held back too, so that they wait those 5 s.

// goAwayPing is the payload of that PING in grpc-go. gRPC for Java and C++ use others, which
// are not held back: their second GOAWAY follows at once.
var goAwayPing = [8]byte{1, 6, 1, 8, 0, 3, 3, 9}

// hold says what a conn holds back. It is used by the goroutine that reads.
type hold struct {
	held bool // a GOAWAY was held back; no further one will be
	ping bool // the PING that follows it has not come yet
}

// WithHold makes the tap hold back the first GOAWAY of a graceful end: Events.GoAway is
// called for it, and the transport does not see it. A GOAWAY that arrives in two pieces is
// not held back. Call WithHold before the State is used.
func (s *State) WithHold() *State {
	s.hold = true
	return s
}

// withhold passes b to the parser and removes from it what is held back. It returns how
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

// holds reports whether a frame is held back.
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
