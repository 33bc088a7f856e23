package proxy

import (
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/davidwartell/go-grpcpool/internal/ready"
)

// clients counts the connections from clients, which each cost a file descriptor and
// some memory, whoever they are: it counts from before the handshake.
type clients struct {
	most    int64
	logger  *slog.Logger
	open    atomic.Int64
	refused atomic.Int64
	full    atomic.Bool // there was no room for the latest
}

// enter counts one in, or says that there is no room. Undone by leave.
func (c *clients) enter() bool {
	if c.open.Add(1) <= c.most {
		c.full.Store(false)
		return true
	}
	c.open.Add(-1)
	c.refused.Add(1)
	if !c.full.Swap(true) { // once for all that come while it lasts
		c.logger.Warn("refusing clients: too many connections", "most", c.most)
	}
	return false
}

func (c *clients) leave() { c.open.Add(-1) }

// countedListener closes the connections that there is no room for.
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
			_ = conn.Close() // nothing was said on it
			continue
		}
		c := &clientConn{Conn: conn, from: l.Listener, leave: sync.OnceFunc(l.clients.leave)}
		if reader := ready.New(conn); reader != nil {
			return &readyClientConn{c, reader}, nil
		}
		return c, nil
	}
}

// clientConn is a client's connection, until it is closed.
type clientConn struct {
	net.Conn

	from  *Listener
	leave func() // once
}

// Close implements net.Conn.
func (c *clientConn) Close() error {
	defer c.leave()
	return c.Conn.Close() //nolint:wrapcheck // it is the connection's
}

// readyClientConn is one that gRPC reads without keeping a buffer for it.
type readyClientConn struct {
	*clientConn
	ready.Reader
}

// clientOf returns what a countedListener accepted.
func clientOf(conn net.Conn) (*clientConn, error) {
	switch c := conn.(type) {
	case *clientConn:
		return c, nil
	case *readyClientConn:
		return c.clientConn, nil
	default:
		return nil, fmt.Errorf("proxy: a connection from no Listener of its own, but %T", conn)
	}
}
