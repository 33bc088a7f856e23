package tap

import "encoding/binary"

// The little of HTTP/2 that the tap knows (RFC 9113, sections 4.1, 6.5, 6.8).
const (
	frameHeaderLen = 9

	typeData         = 0x0
	typeHeaders      = 0x1
	typeRSTStream    = 0x3
	typeSettings     = 0x4
	typePing         = 0x6
	typeGoAway       = 0x7
	typeWindowUpdate = 0x8
	typeContinuation = 0x9

	flagAck        = 0x1 // of SETTINGS and PING
	flagEndStream  = 0x1 // of DATA and HEADERS
	flagEndHeaders = 0x4 // of HEADERS and CONTINUATION

	settingLen                  = 6 // a 16-bit identifier and a 32-bit value
	settingMaxConcurrentStreams = 0x3

	windowUpdateLen = 4

	goAwayLen = 8 // the last stream's identifier and the error code

	// debugLen is how much of a GOAWAY's debug data is kept. A frame may carry
	// 16 KiB of it, and nobody wants to read that in an error.
	debugLen = 256
)

// frame is what stands in a frame's header.
type frame struct {
	kind, flags byte
	length      int // of the payload
	stream      uint32
}

// frameSink is told what the parser finds.
type frameSink interface {
	// frame is called when the header of a frame is here, before anything else is
	// told of it.
	frame(f frame)
	windowUpdate(stream, increment uint32)
	// settings is called at the end of every SETTINGS frame that is no
	// acknowledgement. told says whether the frame named a limit.
	settings(limit uint32, told bool)
	// acknowledged is called for every SETTINGS frame that is one.
	acknowledged()
	goAway(g GoAway)
}

// parser follows the frames in the bytes that one side sends. It looks at the
// frame headers, skips every payload but three, and keeps no more state than one
// half-read header or payload needs, so that the bytes may come in any pieces.
//
// A peer that breaks the rules is left to the transport, which ends such a
// connection; the parser only promises not to panic and not to grow.
//
// One goroutine at a time may use a parser.
type parser struct {
	sink frameSink

	header    [frameHeaderLen]byte
	headerLen int // bytes of the header that are here

	current frame
	left    int // payload bytes of the current frame still to come

	// payload holds one half-read setting, a WINDOW_UPDATE, or a GOAWAY up to its
	// bound.
	payload    [goAwayLen + debugLen]byte
	payloadLen int

	limit uint32 // the last limit in the current SETTINGS frame
	told  bool   // whether there was one
}

// feed takes the next bytes of the stream.
func (p *parser) feed(b []byte) {
	for len(b) > 0 {
		if p.left > 0 {
			n := min(p.left, len(b))
			p.body(b[:n])
			b = b[n:]
			continue
		}
		if p.headerLen == 0 && len(b) >= frameHeaderLen {
			p.begin(b)
			b = b[frameHeaderLen:]
			continue
		}
		n := copy(p.header[p.headerLen:], b)
		b = b[n:]
		p.headerLen += n
		if p.headerLen == frameHeaderLen {
			p.headerLen = 0
			p.begin(p.header[:])
		}
	}
}

// next says how much of b, which is not empty, belongs to one frame, and whether
// that is a whole frame.
func (p *parser) next(b []byte) (n int, whole bool) {
	switch {
	case p.left > 0:
		return min(p.left, len(b)), false
	case p.headerLen > 0:
		return min(frameHeaderLen-p.headerLen, len(b)), false
	case len(b) < frameHeaderLen:
		return len(b), false
	}
	n = frameHeaderLen + (int(b[0])<<16 | int(b[1])<<8 | int(b[2]))
	return min(n, len(b)), n <= len(b)
}

// begin starts a frame whose whole header is at the front of h.
func (p *parser) begin(h []byte) {
	p.left = int(h[0])<<16 | int(h[1])<<8 | int(h[2])
	p.current = frame{kind: h[3], flags: h[4], length: p.left, stream: binary.BigEndian.Uint32(h[5:]) & lastStreamIDMax}
	p.sink.frame(p.current)
	switch p.current.kind {
	case typeSettings, typeGoAway, typeWindowUpdate:
		p.payloadLen, p.told = 0, false
		if p.left == 0 {
			p.end()
		}
	}
}

// body takes bytes of the current frame's payload, at most all that are left.
func (p *parser) body(b []byte) {
	p.left -= len(b)
	switch p.current.kind {
	case typeSettings:
		p.readSettings(b)
	case typeGoAway, typeWindowUpdate:
		p.payloadLen += copy(p.payload[p.payloadLen:], b)
	default:
		return
	}
	if p.left == 0 {
		p.end()
	}
}

// readSettings takes settings as they come, so that a frame of any length needs
// room for one only. Values are processed in the order in which they appear
// (RFC 9113, section 6.5.3): the last one wins.
func (p *parser) readSettings(b []byte) {
	for len(b) > 0 {
		n := copy(p.payload[p.payloadLen:settingLen], b)
		b = b[n:]
		p.payloadLen += n
		if p.payloadLen < settingLen {
			return
		}
		p.payloadLen = 0
		if binary.BigEndian.Uint16(p.payload[:]) == settingMaxConcurrentStreams {
			p.limit, p.told = binary.BigEndian.Uint32(p.payload[2:]), true
		}
	}
}

// end reports the frame that has just been read.
func (p *parser) end() {
	kind := p.current.kind
	switch {
	case kind == typeSettings && p.current.flags&flagAck == 0:
		p.sink.settings(p.limit, p.told)
	case kind == typeSettings:
		p.sink.acknowledged()
	case kind == typeWindowUpdate && p.payloadLen >= windowUpdateLen:
		p.sink.windowUpdate(p.current.stream, binary.BigEndian.Uint32(p.payload[:])&lastStreamIDMax)
	case kind == typeGoAway && p.payloadLen >= goAwayLen:
		p.sink.goAway(GoAway{
			LastStreamID: binary.BigEndian.Uint32(p.payload[:]) & lastStreamIDMax,
			Code:         binary.BigEndian.Uint32(p.payload[4:]),
			Debug:        string(p.payload[goAwayLen:p.payloadLen]),
		})
	}
}
