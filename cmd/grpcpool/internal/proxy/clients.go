package proxy

import (
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/davidwartell/go-grpcpool/internal/logline"
	"github.com/davidwartell/go-grpcpool/internal/ready"
)

// clients counts the connections from clients, from before the handshake: each costs a
// file descriptor and some memory, whoever the client is.
type clients struct {
	most    int64
	logger  *slog.Logger
	open    atomic.Int64
	refused atomic.Int64
	full    atomic.Bool       // the last connection was refused
	crowd   logline.Recurring // that the limit was reached
}

// enter counts a connection, or reports false if there are too many. Undone by leave.
func (c *clients) enter() bool {
	if c.open.Add(1) <= c.most {
		c.full.Store(false)
		return true
	}
	c.open.Add(-1)
	c.refused.Add(1)
	if !c.full.Swap(true) { // a line for each time that it was reached
		if _, tell := c.crowd.Note(time.Now(), 1); tell {
			c.logger.Warn("refusing connections from clients: limit reached", "limit", c.most,
				logline.Hint, "raise --max-clients, or find out which program opens so many")
		}
	}
	return false
}

func (c *clients) leave() { c.open.Add(-1) }

// countedListener closes connections in excess of the limit.
type countedListener struct {
	*Listener

	clients *clients
}

// Accept implements net.Listener.
func (l countedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err //nolint:wrapcheck // gRPC looks for its Temporary method
		}
		if !l.clients.enter() {
			_ = conn.Close() // nothing was sent on it
			continue
		}
		c := &clientConn{Conn: conn, from: l.Listener, leave: sync.OnceFunc(l.clients.leave)}
		if reader := ready.New(conn); reader != nil {
			return &readyClientConn{c, reader}, nil
		}
		return c, nil
	}
}

// clientConn is a connection from a client. It is counted until it is closed.
type clientConn struct {
	net.Conn

	from  *Listener
	leave func() // runs once
}

// Close implements net.Conn.
func (c *clientConn) Close() error {
	defer c.leave()
	return c.Conn.Close() //nolint:wrapcheck // it is the connection's
}

// readyClientConn is a clientConn that gRPC reads without holding a buffer for it.
type readyClientConn struct {
	*clientConn
	ready.Reader
}

// clientOf returns the clientConn that a countedListener accepted as conn.
func clientOf(conn net.Conn) (*clientConn, error) {
	switch c := conn.(type) {
	case *clientConn:
		return c, nil
	case *readyClientConn:
		return c.clientConn, nil
	default:
		return nil, fmt.Errorf("proxy: unexpected connection of type %T", conn)
	}
}
