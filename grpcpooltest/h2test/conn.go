package h2test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const initialWindow = 65535 // RFC 9113, section 6.9.2

// conn is one connection. Its serve goroutine reads; a second one writes what
// the outbox holds, so that no lock is held over I/O and a client that does not
// read holds up nobody but itself.
type conn struct {
	srv    *Server
	raw    net.Conn
	number int64
	fault  Fault
	done   chan struct{} // closed when serve returns
	outbox outbox

	mu      sync.Mutex // guards all below
	allowed allowance
	open    map[uint32]struct{} // streams whose answer has not been written
	last    uint32              // the highest stream taken
	away    bool                // the final GOAWAY is written: take no new streams
	window  int64               // bytes of DATA that the client will take
	starved []uint32            // streams whose answer waits for the window
}

func newConn(s *Server, raw net.Conn, number int64, fault Fault) *conn {
	return &conn{
		srv:     s,
		raw:     raw,
		number:  number,
		fault:   fault,
		done:    make(chan struct{}),
		outbox:  newOutbox(),
		allowed: newAllowance(),
		open:    make(map[uint32]struct{}),
		window:  initialWindow,
	}
}

// cut closes the connection without ceremony.
func (c *conn) cut() { _ = c.raw.Close() }

// sleep waits for d, and reports whether the connection is still there.
func (c *conn) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.done:
		return false
	}
}

func (c *conn) serve() {
	defer c.srv.forget(c)
	defer close(c.done)
	defer c.cut()
	nc := c.raw
	if c.srv.tls != nil {
		secure := tls.Server(nc, c.srv.tls)
		if secure.HandshakeContext(context.Background()) != nil {
			return // the client has its alert, or cut has ended a handshake that hung
		}
		nc = secure
	}
	if c.serveForeign(nc) {
		return
	}
	w := bufio.NewWriter(nc)
	fr := http2.NewFramer(w, bufio.NewReader(nc))
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.misbehave()
	c.srv.goroutines.Go(func() { c.write(nc, w, fr) })
	if c.fault == NeverReads {
		<-c.srv.quit
		return
	}
	c.read(nc, fr)
}

// read takes frames until the client closes or breaks the rules.
func (c *conn) read(nc net.Conn, fr *http2.Framer) {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(nc, preface); err != nil || string(preface) != http2.ClientPreface {
		return
	}
	for {
		f, err := fr.ReadFrame()
		var streamErr http2.StreamError
		if errors.As(err, &streamErr) {
			c.outbox.put(func(fr *http2.Framer) error { return fr.WriteRSTStream(streamErr.StreamID, streamErr.Code) })
			c.drop(streamErr.StreamID)
			continue
		}
		if err != nil || !c.take(f) {
			return
		}
	}
}

// take handles a frame, and reports whether the connection goes on.
func (c *conn) take(f http2.Frame) bool {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			return c.takeSettingsAck()
		}
		if c.fault != NeverAcknowledges {
			c.outbox.put((*http2.Framer).WriteSettingsAck)
		}
	case *http2.PingFrame:
		if data := f.Data; !f.IsAck() && c.fault != NeverAcknowledges {
			c.outbox.put(func(fr *http2.Framer) error { return fr.WritePing(true, data) })
		}
	case *http2.MetaHeadersFrame:
		c.takeHeaders(f)
	case *http2.DataFrame:
		c.takeData(f)
	case *http2.RSTStreamFrame:
		c.drop(f.StreamID)
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.widen(int64(f.Increment))
		}
	}
	return true
}

func (c *conn) takeSettingsAck() bool {
	if c.fault == SettingsFlood {
		return true // too many to keep the books
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.allowed.ack()
}

// takeHeaders begins a call, or ends its request when they are trailers.
func (c *conn) takeHeaders(f *http2.MetaHeadersFrame) {
	isNew, taken := c.begin(f.StreamID)
	if isNew && taken {
		info := CallInfo{
			Seq:    c.srv.calls.Add(1),
			Conn:   c.number,
			Stream: f.StreamID,
			Method: f.PseudoValue("path"),
		}
		for _, h := range f.RegularFields() {
			if h.Name == "x-order" {
				info.Order = h.Value
			}
		}
		if c.srv.onCall != nil {
			c.srv.onCall(info)
		}
	}
	if f.StreamEnded() {
		c.answerLater(f.StreamID)
	}
}

// begin reports whether the stream is new, and if so whether it is taken.
func (c *conn) begin(id uint32) (isNew, taken bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id <= c.last {
		return false, false
	}
	if c.away {
		return true, false // beyond the last stream of the GOAWAY: the client retries it elsewhere
	}
	c.last = id
	c.open[id] = struct{}{}
	n := int64(len(c.open))
	c.srv.sawStreams(n)
	if n > int64(c.allowed.now()) {
		c.srv.violations.Add(1)
	}
	return true, true
}

// takeData ignores a request's body and gives its room in the windows back.
func (c *conn) takeData(f *http2.DataFrame) {
	id, n, ended := f.StreamID, f.Length, f.StreamEnded()
	if n > 0 && c.fault != ZeroWindow {
		c.outbox.put(func(fr *http2.Framer) error {
			if err := fr.WriteWindowUpdate(0, n); err != nil || ended {
				return err
			}
			return fr.WriteWindowUpdate(id, n)
		})
	}
	if ended {
		c.answerLater(id)
	}
}

// answerLater answers a request that has ended, when its delay is over.
func (c *conn) answerLater(id uint32) {
	if c.mistreat(id) {
		return
	}
	d := c.srv.currentDelay()
	if d <= 0 {
		c.sendAnswer(id)
		return
	}
	c.srv.goroutines.Go(func() {
		if c.sleep(d) {
			c.sendAnswer(id)
		}
	})
}

// drop forgets a stream that was reset.
func (c *conn) drop(id uint32) {
	c.mu.Lock()
	delete(c.open, id)
	c.mu.Unlock()
	c.outbox.put(func(*http2.Framer) error { return c.finished() })
}

// widen adds to the client's window, and lets the answers go that waited for it.
func (c *conn) widen(n int64) {
	c.mu.Lock()
	c.window += n
	starved := c.starved
	c.starved = nil
	c.mu.Unlock()
	for _, id := range starved {
		c.sendAnswer(id)
	}
}
