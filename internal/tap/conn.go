package tap

import (
	"net"
	"syscall"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/davidwartell/go-grpcpool/internal/ready"
)

// alertTimeout limits the wait for an alert after a failed write. The peer sends the alert
// before it closes the connection, so it is in the receive buffer already if there is one.
// Only a busy machine needs any time to read it.
const alertTimeout = 50 * time.Millisecond

// wrap puts a tap for l onto nc. Of the optional methods that grpc-go looks for, the result
// has those that nc has, as it could not implement the others.
func wrap(nc net.Conn, l *link) net.Conn {
	c := &conn{Conn: nc, link: l, parser: parser{sink: l}}
	l.questions.init(c)
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

// sysConn is a conn whose socket options channelz can read.
type sysConn struct {
	*conn
	syscallConn
}

type syscallConn = syscall.Conn // an alias, as a field named Conn would hide that of conn

// readyConn is a conn that implements ready.Reader.
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
		kept, err := c.received(b[:n], err)
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
			_, err = c.received(nil, err)
			return b, n, err
		}
		kept, err := c.received((*b)[:n], err)
		if kept > 0 {
			return b, kept, err
		}
		pool.Put(b)
		if err != nil {
			return nil, 0, err
		}
	}
}

// received handles the result of a read, and returns the result for the transport: how many
// of the bytes, and the error.
func (c *conn) received(b []byte, err error) (int, error) {
	n := len(b)
	if len(b) > 0 && !c.link.bytesTaken.Load() {
		now := c.link.noteRead()
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
		err = c.link.ending.transportError(err)
	}
	return n, err
}

// feed passes b to the parser and returns how many of its bytes the transport may see.
func (c *conn) feed(b []byte) int {
	if c.link.state.hold {
		return c.withhold(b)
	}
	c.parser.feed(b)
	return len(b)
}

func (c *conn) Write(b []byte) (int, error) {
	c.link.questions.begin(b)
	defer c.link.questions.end()
	n, err := c.Conn.Write(b)
	c.link.sent.Add(int64(n))
	if err != nil {
		c.link.ending.record("writing", err)
		if severityOf(err) != ownClose {
			c.readAlert()
		}
		err = c.link.ending.transportError(err)
	}
	return n, err
}

func (c *conn) Close() error {
	c.link.ending.close()
	c.link.questions.close()
	err := c.Conn.Close()
	c.link.questions.wait()
	return err
}

// readAlert looks for a TLS alert in what a peer that is gone has left in the receive
// buffer. In TLS 1.3 the client's handshake ends before the server has checked the client's
// certificate. A server that refuses it sends an alert and closes. If the transport writes
// to the closed socket before its reader reads the alert, the write's "broken pipe" would
// be the only error.
//
// It reads only before the first SETTINGS. Until then grpc-go is still making the
// transport, and gives the connection up when a write fails, so that it does no harm to
// take bytes from its reader. After that its reader continues until the end and reads an
// alert by itself.
//
// The transport's reader may be in Read at the same time. tls.Conn lets in one of the two at
// a time and returns a fatal error to both; the first of them records it. If application
// data is taken here, the reader misses it until the transport has closed the connection;
// bytesTaken then keeps the parser from reading on.
func (c *conn) readAlert() {
	if c.link.tls == nil || c.link.settled.Load() || c.link.bytesTaken.Swap(true) {
		return
	}
	if c.SetReadDeadline(time.Now().Add(alertTimeout)) != nil {
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
