package tap

import (
	"net"
	"syscall"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/davidwartell/go-grpcpool/internal/ready"
)

// lastWordsTimeout bounds the wait for an alert after a failed write. The alert
// was sent before whatever made the write fail, so it is in the receive buffer
// or it was never sent; only a busy machine needs more than an instant.
const lastWordsTimeout = 50 * time.Millisecond

// wrap puts a tap for l onto nc. The result has the optional methods that nc
// has and grpc-go asks for, no more: offering a method that cannot keep its
// promise would be worse than not offering it.
func wrap(nc net.Conn, l *link) net.Conn {
	c := &conn{Conn: nc, link: l, parser: parser{sink: l}}
	l.asking.init(c)
	sys, isSys := nc.(syscall.Conn)
	reader := ready.New(nc)
	switch {
	case reader != nil && isSys:
		return &readySysConn{readyConn{c, reader}, sys}
	case reader != nil:
		return &readyConn{c, reader}
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
	hold    hold
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

	ready ready.Reader
}

type readySysConn struct {
	readyConn
	syscallConn
}

func (c *conn) Read(b []byte) (int, error) {
	for {
		if c.ended != nil {
			return 0, c.ended
		}
		n, err := c.Conn.Read(b)
		kept, err := c.took(b[:n], err)
		if kept > 0 || err != nil || n == 0 {
			return kept, err
		}
	}
}

func (c *readyConn) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	for {
		if c.ended != nil {
			return nil, 0, c.ended
		}
		b, n, err := c.ready.ReadOnReady(size, pool)
		if n <= 0 {
			_, err = c.took(nil, err)
			return b, n, err
		}
		kept, err := c.took((*b)[:n], err)
		if kept > 0 {
			return b, kept, err
		}
		pool.Put(b)
		if err != nil {
			return nil, 0, err
		}
	}
}

// took is called with the outcome of every read of the transport, and returns what
// to tell it: how many of the bytes, and the error.
func (c *conn) took(b []byte, err error) (int, error) {
	n := len(b)
	if len(b) > 0 && !c.link.holed.Load() {
		now := c.link.hear()
		if c.opening.over {
			n = c.feed(b)
			c.ended = c.watchFlood(now)
		} else {
			c.parser.feed(b)
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
	return n, err
}

// feed has the parser look at b, and returns how much of it the transport may see.
func (c *conn) feed(b []byte) int {
	if c.link.state.hold {
		return c.withhold(b)
	}
	c.parser.feed(b)
	return len(b)
}

func (c *conn) Write(b []byte) (int, error) {
	c.link.asking.begin(b)
	defer c.link.asking.end()
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
	c.link.asking.close()
	err := c.Conn.Close()
	c.link.asking.wait()
	return err
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
