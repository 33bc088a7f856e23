package tap

import (
	"sync"
	"sync/atomic"

	"golang.org/x/net/http2"
)

// framesPerStream is how many frames without data a server may send for a stream that this
// side opened: headers, trailers, a RST_STREAM, a few informational headers, CONTINUATIONs
// and frames of extensions. Few servers send more than four.
const framesPerStream = 16

// ledger keeps how many frames the peer may still send because of what this side has sent:
// an answer to every stream, and the return of the flow-control window of every byte. A
// server may be slow with both, so this credit lasts as long as the stream is open or the
// window is not returned. It ends with them, so that many calls over a long time do not add
// up to a credit for a flood.
//
// It also parses the frames that are written, for [questions].
type ledger struct {
	everOpened atomic.Int64 // streams

	mu           sync.Mutex // guards all below; held for the frames of one write, or one frame read
	begun        bool       // something has been written
	preface      int        // bytes of the connection preface not written yet
	written      parser     // of the frames that are written
	inBlock      bool       // within a header block
	settingsSent uint64     // SETTINGS written that the peer has to acknowledge

	sent      int64            // bytes sent since lapse was last called
	opened    int64            // streams opened since then
	ended     int64            // streams that the peer has ended since then
	open      map[uint32]int64 // by stream: bytes of DATA whose window the peer has not returned
	newest    uint32           // the stream opened last
	inAll     int64            // sum of open
	onConn    int64            // the same for the connection's own window
	resets    resets           // the latest
	oldResets resets           // those before; their mark does not move
	read      bool             // the peer has read oldResets
}

// resets are streams that this side has reset. The peer may answer them until it has read
// the RST_STREAM, which it certainly has once it ends a stream that was opened later.
type resets struct {
	streams int64
	mark    uint32 // the newest stream when the last of them was reset
}

// wrote notes what is about to be written.
func (l *ledger) wrote(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.begun {
		l.begun = true
		l.open = make(map[uint32]int64)
		l.written.sink = l
		if n := min(len(b), len(http2.ClientPreface)); string(b[:n]) == http2.ClientPreface[:n] {
			l.preface = len(http2.ClientPreface)
		}
	}
	skip := min(l.preface, len(b))
	l.preface -= skip
	b = b[skip:]
	l.sent += int64(len(b))
	l.written.feed(b)
}

// atBoundary reports whether the tap may send a frame of its own now: not within a frame of
// the transport, not within a header block (RFC 9113, section 6.10), and not before the
// transport's first SETTINGS.
func (l *ledger) atBoundary() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.settingsSent > 0 && l.written.left == 0 && l.written.headerLen == 0 && !l.inBlock
}

// settingsWritten returns how many SETTINGS were written that the peer has to acknowledge.
func (l *ledger) settingsWritten() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.settingsSent
}

// frame implements frameSink, for written frames.
func (l *ledger) frame(f frame) {
	left, isOpen := l.open[f.stream]
	switch f.kind {
	case typeSettings:
		if f.flags&flagAck == 0 {
			l.settingsSent++
		}
	case typeContinuation:
		l.inBlock = f.flags&flagEndHeaders == 0
	case typeHeaders:
		l.inBlock = f.flags&flagEndHeaders == 0
		if !isOpen {
			l.open[f.stream] = 0
			l.opened++
			l.everOpened.Add(1)
			l.newest = max(l.newest, f.stream)
		}
	case typeData:
		l.onConn += int64(f.length)
		if isOpen {
			l.open[f.stream] = left + int64(f.length)
			l.inAll += int64(f.length)
		}
	case typeRSTStream:
		if isOpen {
			l.forget(f.stream, left)
			l.resets.streams++
			l.resets.mark = l.newest
		}
	}
}

func (l *ledger) forget(stream uint32, left int64) {
	delete(l.open, stream)
	l.inAll -= left
}

// end notes that the peer has ended a stream.
func (l *ledger) end(stream uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	left, isOpen := l.open[stream]
	if !isOpen {
		return
	}
	l.forget(stream, left)
	l.ended++
	l.read = l.read || stream > l.oldResets.mark
}

// returnWindow notes that the peer has returned n bytes of a window.
func (l *ledger) returnWindow(stream, n uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if stream == 0 {
		l.onConn = max(l.onConn-int64(n), 0)
		return
	}
	if left, isOpen := l.open[stream]; isOpen {
		back := min(left, int64(n))
		l.open[stream] = left - back
		l.inAll -= back
	}
}

// latest returns the bytes sent and the streams opened since lapse was last called.
func (l *ledger) latest() (bytes, streams int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent, l.opened
}

// lapse begins a new window, and returns how many frames may still come at most for what
// was sent until now. Streams that have ended since the last call count once more, as a
// RST_STREAM may follow.
func (l *ledger) lapse() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	streams := int64(len(l.open)) + l.ended + l.resets.streams + l.oldResets.streams
	l.sent, l.opened, l.ended = 0, 0, 0
	if l.read || l.oldResets.streams == 0 {
		l.oldResets, l.resets, l.read = l.resets, resets{}, false
	}
	return framesPerStream*streams + (l.inAll+l.onConn)/bytesPerFrame
}

// The rest of frameSink; the ledger does not need it.
func (*ledger) settings(uint32, bool)       {}
func (*ledger) acknowledged()               {}
func (*ledger) goAway(GoAway)               {}
func (*ledger) windowUpdate(uint32, uint32) {}
