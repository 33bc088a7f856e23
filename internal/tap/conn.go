package tap

import (
	"net"
	"syscall"
	"time"

	"google.golang.org/grpc/mem"
)

// lastWordsTimeout bounds the wait for an alert after a failed write. The alert
// was sent before whatever made the write fail, so it is in the receive buffer
// or it was never sent; only a busy machine needs more than an instant.
const lastWordsTimeout = 50 * time.Millisecond

// readyReader is what grpc-go's transport looks for, structurally, on a
// connection that it is about to read from: a read that takes its buffer only
// once there is something to put into it, so that an idle connection pins none.
type readyReader interface {
	ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error)
}

// wrap puts a tap for l onto nc. The result has the optional methods that nc
// has and grpc-go asks for, no more: offering a method that cannot keep its
// promise would be worse than not offering it.
func wrap(nc net.Conn, l *link) net.Conn {
	c := &conn{Conn: nc, link: l, parser: parser{sink: l}}
	sys, isSys := nc.(syscall.Conn)
	ready := newReadyReader(nc)
	switch {
	case ready != nil && isSys:
		return &readySysConn{readyConn{c, ready}, sys}
	case ready != nil:
		return &readyConn{c, ready}
	case isSys:
		return &sysConn{c, sys}
	default:
		return c
	}
}

// conn is the tap itself.
type conn struct {
	net.Conn

	link *link

	// Used by the goroutine that reads.
	parser  parser
	opening opening
	flood   floodWatch
	ended   error // why the tap ended the connection: the next read fails with it
}

// sysConn is a conn whose socket channelz can ask for its options.
type sysConn struct {
	*conn
	syscallConn
}

type syscallConn = syscall.Conn // under its own name it would hide conn's Conn

// readyConn is a conn on a connection that can read on ready.
type readyConn struct {
	*conn

	ready readyReader
}

type readySysConn struct {
	readyConn
	syscallConn
}

func (c *conn) Read(b []byte) (int, error) {
	if c.ended != nil {
		return 0, c.ended
	}
	n, err := c.Conn.Read(b)
	return n, c.took(b[:n], err)
}

func (c *readyConn) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	if c.ended != nil {
		return nil, 0, c.ended
	}
	b, n, err := c.ready.ReadOnReady(size, pool)
	if n > 0 {
		err = c.took((*b)[:n], err)
	} else {
		err = c.took(nil, err)
	}
	return b, n, err
}

// took is called with the outcome of every read of the transport, and returns the
// error to tell it.
func (c *conn) took(b []byte, err error) error {
	if len(b) > 0 && !c.link.holed.Load() {
		now := c.link.hear()
		c.parser.feed(b)
		if c.opening.over {
			c.ended = c.watchFlood(now)
		} else {
			c.ended = c.open(b)
		}
	}
	if err != nil {
		if !c.opening.over {
			c.openFailed()
		}
		c.link.ending.record("reading", err)
		err = c.link.ending.told(err)
	}
	return err
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.link.sent.Add(int64(n))
	if err != nil {
		c.link.ending.record("writing", err)
		if rank(err) != nothing {
			c.hearLastWords()
		}
		err = c.link.ending.told(err)
	}
	return n, err
}

func (c *conn) Close() error {
	c.link.ending.close()
	return c.Conn.Close()
}

// hearLastWords reads what a peer that is gone has left in the receive buffer,
// in search of a TLS alert. Under TLS 1.3 the client's handshake is over before
// the server has looked at the client's certificate. A server that refuses it
// sends an alert and closes; if the transport's first write meets the closed
// socket before its reader meets the alert, the write's "broken pipe" is all
// that anybody is told.
//
// It reads only before the first SETTINGS. Until then grpc-go is still making
// the transport, and gives the connection up when a write fails, so taking bytes
// from its reader costs nothing. Later it lets its reader go on to the end, and
// that will meet an alert by itself.
//
// The transport's reader may be in Read meanwhile. tls.Conn lets one of the two
// in at a time and returns a fatal error to both: whoever comes first records
// it. Should application data be taken here, the reader sees a stream with a
// hole in it until the transport has closed the connection, and the parser is
// told to stop listening.
func (c *conn) hearLastWords() {
	if c.link.tls == nil || c.link.settled.Load() || c.link.holed.Swap(true) {
		return
	}
	if c.SetReadDeadline(time.Now().Add(lastWordsTimeout)) != nil {
		return
	}
	buf := make([]byte, 1<<10)
	for {
		if _, err := c.Conn.Read(buf); err != nil {
			c.link.ending.record("reading", err)
			return
		}
	}
}
