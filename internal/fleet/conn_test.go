package fleet_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// conn is both ends of a connection. The server's end reads on the goroutine that the
// client writes on, and answers at once, so that it needs no goroutine of its own.
type conn struct {
	client *client

	mu       sync.Mutex // guards what follows
	changed  sync.Cond  // on mu: Read may have something to return
	serving  bool       // the server has begun HTTP/2
	greeted  bool       // the client's preface was read
	arrived  []byte     // from the client, not read by the server
	answers  bytes.Buffer
	closed   bool      // by the client
	ended    error     // what Read returns when the answers are read: the server has closed
	dark     bool      // packets are lost
	unheard  time.Time // when the client first sent what was lost; zero: it has not
	unknown  bool      // packets arrive again, at a server that does not know the connection
	deadline time.Time
	timer    *time.Timer // wakes Read at the deadline; nil: never set
}

func newConn(c *client) *conn {
	nc := &conn{client: c}
	nc.changed.L = &nc.mu
	return nc
}

func (c *conn) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case c.answers.Len() > 0:
			return c.answers.Read(b)
		case c.ended != nil:
			return 0, c.ended
		case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
			return 0, os.ErrDeadlineExceeded
		}
		c.changed.Wait()
	}
}

func (c *conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	if c.ended != nil {
		return 0, io.ErrClosedPipe
	}
	if c.unheard.IsZero() && (c.dark || c.unknown) {
		c.unheard = time.Now()
		if c.unknown {
			c.resetLaterLocked(roundTrip)
		}
	}
	if c.dark || c.unknown {
		return len(b), nil
	}
	c.arrived = append(c.arrived, b...)
	if c.serving {
		c.readLocked()
	}
	return len(b), nil
}

func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	c.arrived = c.arrived[:min(1, len(c.arrived))] // the server only asks whether there was anything
	c.changed.Broadcast()
	if c.timer != nil {
		c.timer.Stop()
	}
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if c.timer != nil {
		c.timer.Stop()
	}
	if !t.IsZero() {
		c.timer = time.AfterFunc(time.Until(t), func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.changed.Broadcast()
		})
	}
	return nil
}

func (c *conn) SetWriteDeadline(time.Time) error { return nil } // a write never waits
func (c *conn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *conn) LocalAddr() net.Addr              { return memoryAddr{} }
func (c *conn) RemoteAddr() net.Addr             { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }

// end closes the server's end.
func (c *conn) end(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.ended = why
	}
	c.changed.Broadcast()
}

// used reports whether the client may be using it.
func (c *conn) used() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.serving && !c.closed
}

// darken has what the client sends from now on be lost.
func (c *conn) darken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dark = true
}

// brighten has packets arrive again. The first is a retransmission of TCP's, if the client
// sent anything, and is answered by a reset.
func (c *conn) brighten() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dark, c.unknown = false, true
	if c.unheard.IsZero() {
		return
	}
	const first, longest = 200 * time.Millisecond, 2 * time.Minute // Linux's
	next, again := c.unheard.Add(first), 2*first
	for next.Before(time.Now()) {
		next, again = next.Add(again), min(2*again, longest)
	}
	c.resetLaterLocked(time.Until(next))
}

func (c *conn) resetLaterLocked(d time.Duration) {
	time.AfterFunc(d, func() { c.end(syscall.ECONNRESET) })
}

// gone reports whether the client has closed, and whether it had sent anything.
func (c *conn) gone() (closed, spoke bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed, len(c.arrived) > 0
}

// serve begins HTTP/2. It reports whether the client was still there.
func (c *conn) serve() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.ended != nil {
		return false
	}
	c.serving = true
	c.respondLocked(func(fr *http2.Framer) { _ = fr.WriteSettings() })
	c.readLocked()
	return true
}

// respondLocked writes frames to the client; into memory, which never fails.
func (c *conn) respondLocked(write func(*http2.Framer)) {
	write(http2.NewFramer(&c.answers, nil))
	c.changed.Broadcast()
}

// readLocked reads the frames that have arrived whole.
func (c *conn) readLocked() {
	const headerLen = 9
	if !c.greeted && len(c.arrived) >= len(http2.ClientPreface) {
		c.arrived = c.arrived[len(http2.ClientPreface):]
		c.greeted = true
	}
	for c.greeted && len(c.arrived) >= headerLen {
		h, err := http2.ReadFrameHeader(bytes.NewReader(c.arrived))
		if err != nil || len(c.arrived) < headerLen+int(h.Length) {
			return
		}
		c.takeLocked(h, c.arrived[headerLen:headerLen+int(h.Length)])
		c.arrived = c.arrived[headerLen+int(h.Length):]
	}
	if len(c.arrived) == 0 {
		c.arrived = nil // or the slice would creep through ever new arrays
	}
}

// takeLocked answers one frame.
func (c *conn) takeLocked(h http2.FrameHeader, payload []byte) {
	c.respondLocked(func(fr *http2.Framer) {
		switch h.Type {
		case http2.FrameSettings:
			if !h.Flags.Has(http2.FlagSettingsAck) {
				_ = fr.WriteSettingsAck()
			}
		case http2.FramePing:
			if !h.Flags.Has(http2.FlagPingAck) {
				_ = fr.WritePing(true, [8]byte(payload))
			}
		case http2.FrameData:
			if h.Length > 0 {
				_ = fr.WriteWindowUpdate(0, h.Length)
			}
			if h.Flags.Has(http2.FlagDataEndStream) {
				answer(fr, h.StreamID)
			}
		default: // nothing that this server needs
		}
	})
}

// serving is the message of every answer: that of the health service that is serving. As an
// emptypb.Empty it has an unknown field.
var serving = []byte{0, 0, 0, 0, 2, 1 << 3, 1}

// answer ends a call with status OK, whatever its method.
func answer(fr *http2.Framer, stream uint32) {
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: responseHeaders, EndHeaders: true})
	_ = fr.WriteData(stream, false, serving)
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: responseTrailers, EndHeaders: true, EndStream: true})
}

var (
	responseHeaders  = block(":status", "200", "content-type", "application/grpc")
	responseTrailers = block("grpc-status", "0")
)

// block encodes header fields so that no connection's table is touched.
func block(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: true})
	}
	return b.Bytes()
}
