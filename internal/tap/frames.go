package tap

import "encoding/binary"

// The parts of HTTP/2 that the tap needs (RFC 9113, sections 4.1, 6.5, 6.8).
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

	// debugLen is how many bytes of a GOAWAY's debug data are kept. A frame may have
	// 16 KiB of it, too much for an error.
	debugLen = 256
)

// frame is the header of a frame.
type frame struct {
	kind, flags byte
	length      int // of the payload
	stream      uint32
}

// frameSink receives what the parser finds.
type frameSink interface {
	// frame is called for the header of a frame, before any other method is called for
	// that frame.
	frame(f frame)
	windowUpdate(stream, increment uint32)
	// settings is called at the end of every SETTINGS frame that is not an
	// acknowledgement. named is true if the frame sets the limit.
	settings(limit uint32, named bool)
	// acknowledged is called for every SETTINGS frame that is an acknowledgement.
	acknowledged()
	goAway(g GoAway)
}

// parser parses the frames in the bytes that one side sends. It reads the frame headers and
// the payloads of three kinds of frame, and skips other payloads. Its only state is one
// half-read header or payload, so the bytes may come in pieces of any length.
//
// It leaves invalid frames to the transport, which closes the connection. The parser itself
// neither panics nor grows on them.
//
// One goroutine at a time may use a parser.
type parser struct {
	sink frameSink

	header    [frameHeaderLen]byte
	headerLen int // bytes of the header read so far

	current frame
	left    int // payload bytes of the current frame not read yet

	// payload holds one half-read setting, a WINDOW_UPDATE, or the beginning of a GOAWAY.
	payload    [goAwayLen + debugLen]byte
	payloadLen int

	limit uint32 // the last limit in the current SETTINGS frame
	named bool   // the current SETTINGS frame has a limit
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

// next returns how many bytes of b belong to one frame, and whether they are a whole frame.
// b is not empty.
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

// begin begins a frame; its whole header is at the front of h.
func (p *parser) begin(h []byte) {
	p.left = int(h[0])<<16 | int(h[1])<<8 | int(h[2])
	p.current = frame{kind: h[3], flags: h[4], length: p.left, stream: binary.BigEndian.Uint32(h[5:]) & lastStreamIDMax}
	p.sink.frame(p.current)
	switch p.current.kind {
	case typeSettings, typeGoAway, typeWindowUpdate:
		p.payloadLen, p.named = 0, false
		if p.left == 0 {
			p.end()
		}
	}
}

// body reads bytes of the current frame's payload, at most those that are left.
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

// readSettings reads the settings one by one, so that it need not hold a whole frame. They
// are processed in the order in which they appear (RFC 9113, section 6.5.3): the last value
// applies.
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
			p.limit, p.named = binary.BigEndian.Uint32(p.payload[2:]), true
		}
	}
}

// end reports the frame whose last byte has been read.
func (p *parser) end() {
	kind := p.current.kind
	switch {
	case kind == typeSettings && p.current.flags&flagAck == 0:
		p.sink.settings(p.limit, p.named)
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
