package grpcpooltest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
)

// DialFunc is what grpc.WithContextDialer takes.
type DialFunc func(ctx context.Context, addr string) (net.Conn, error)

// Link is a network path with faults. It works in a bubble of testing/synctest if the
// server behind it is in memory. As with TCP, what a fault holds up is not lost but
// late: it arrives when the link has healed, unless the connection has been closed. Its
// methods may be called concurrently.
type Link struct {
	dial  DialFunc
	dials atomic.Int64

	mu       sync.Mutex    // guards all below
	changed  chan struct{} // closed, and made anew, at every change; nil in a zero Link
	up, down bool          // what is dropped: to the server, to the client
	hung     bool          // dials succeed, and nothing passes
	refused  bool          // dials are refused
	delay    time.Duration // one way
	conns    map[*linkConn]struct{}
}

// NewLink makes a link to the server that dial connects to, such as [Standalone.Dial]. If
// dial is nil, every dial over the link fails.
func NewLink(dial DialFunc) *Link {
	return &Link{dial: dial, changed: make(chan struct{}), conns: make(map[*linkConn]struct{})}
}

// DialOption makes a client dial over the link.
func (l *Link) DialOption() grpc.DialOption { return grpc.WithContextDialer(l.Dial) }

// Blackhole drops everything, as if the cable were cut: nothing arrives any more, and
// dials hang. Undone by Heal.
func (l *Link) Blackhole() { l.Drop(true, true) }

// Drop sets what is dropped from now on: up is what goes to the server, down what comes
// to the client. While either is dropped, dials hang. Undone by Heal.
func (l *Link) Drop(up, down bool) {
	l.change(func() { l.up, l.down = up, down })
}

// Hang is as if the server's process were stopped: its kernel accepts connections, and
// nothing is answered. Undone by Heal.
func (l *Link) Hang() {
	l.change(func() { l.hung = true })
}

// Refuse refuses dials, as the server's host does when nothing listens on the port.
// Open connections stay; Reset cuts them. Undone by Heal.
func (l *Link) Refuse() {
	l.change(func() { l.refused = true })
}

// Heal undoes Blackhole, Drop, Hang and Refuse.
func (l *Link) Heal() {
	l.change(func() { l.up, l.down, l.hung, l.refused = false, false, false, false })
}

// Delay makes everything that is sent from now on arrive later by d, each way. A dial
// takes two delays. A d of 0 or less is no delay.
func (l *Link) Delay(d time.Duration) {
	l.change(func() { l.delay = d })
}

// Reset cuts every open connection. It does not wait until the client has noticed.
func (l *Link) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		_ = c.far.Close()
	}
}

// Dials is how many dials were begun.
func (l *Link) Dials() int64 { return l.dials.Load() }

func (l *Link) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	if l.changed != nil {
		close(l.changed)
	}
	l.changed = make(chan struct{})
}

// state says whether a direction drops, and what tells that this may have changed.
func (l *Link) state(up bool) (dropped bool, delay time.Duration, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	dropped = l.down || l.hung
	if up {
		dropped = l.up || l.hung
	}
	return dropped, l.delay, l.changed
}

// dialState says what becomes of a dial's first packet, and how long one way takes.
func (l *Link) dialState() (dropped, refused bool, delay time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up || l.down, l.refused, l.delay
}

// Dial connects. While the link drops anything it tries again when TCP would: 1, 3, 7
// and 15 seconds later.
func (l *Link) Dial(ctx context.Context, addr string) (net.Conn, error) {
	if l.dial == nil {
		return nil, errors.New("grpcpooltest: the link leads nowhere: NewLink got a nil function")
	}
	l.dials.Add(1)
	for wait := time.Second; ; wait *= 2 {
		dropped, refused, delay := l.dialState()
		if dropped {
			if err := sleep(ctx, wait); err != nil {
				return nil, err
			}
			continue
		}
		if err := sleep(ctx, 2*delay); err != nil {
			return nil, err
		}
		if refused {
			return nil, fmt.Errorf("grpcpooltest: dialling over a link: %w", syscall.ECONNREFUSED)
		}
		break
	}
	far, err := l.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	near, inside := net.Pipe()
	c := &linkConn{Conn: near, link: l, inside: inside, far: far, closed: make(chan struct{})}
	l.mu.Lock()
	l.conns[c] = struct{}{}
	l.mu.Unlock()
	c.running.Go(func() { c.carry(inside, far, true) })
	c.running.Go(func() { c.carry(far, inside, false) })
	return c, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // what a dialer returns
	}
}

// linkConn is the client's end of a connection over a link.
type linkConn struct {
	net.Conn

	link        *Link
	inside, far net.Conn
	running     sync.WaitGroup
	closing     sync.Once
	closed      chan struct{}
}

// Close ends the connection and waits for what carries it.
func (c *linkConn) Close() error {
	c.closing.Do(func() {
		close(c.closed)
		_ = c.Conn.Close()
		_ = c.inside.Close()
		_ = c.far.Close()
		c.running.Wait()
		c.link.mu.Lock()
		defer c.link.mu.Unlock()
		delete(c.link.conns, c)
	})
	return nil
}

// RemoteAddr is the server's.
func (c *linkConn) RemoteAddr() net.Addr { return c.far.RemoteAddr() }

// chunk is what one Write sent, and when it arrives.
type chunk struct {
	bytes []byte
	at    time.Time
}

// carry copies from one end to the other: a reader that always reads, as a kernel
// does, and a writer that keeps to the link's faults.
func (c *linkConn) carry(from, to net.Conn, up bool) {
	chunks := make(chan chunk, 1<<14)
	var writer sync.WaitGroup
	writer.Go(func() {
		defer func() { _ = to.Close() }()
		for ch := range chunks {
			if !c.pass(ch, up) {
				return
			}
			if _, err := to.Write(ch.bytes); err != nil {
				return
			}
		}
	})
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			_, delay, _ := c.link.state(up)
			select {
			case chunks <- chunk{append([]byte(nil), buf[:n]...), time.Now().Add(delay)}:
			default:
				err = errors.New("grpcpooltest: the link's buffer is full")
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) { // reset: what is on its way is lost
				_ = to.Close()
			}
			close(chunks)
			writer.Wait()
			return
		}
	}
}

// pass waits until ch may arrive. It is false when the connection has been closed.
func (c *linkConn) pass(ch chunk, up bool) bool {
	for {
		dropped, _, changed := c.link.state(up)
		var late <-chan time.Time
		if !dropped {
			wait := time.Until(ch.at)
			if wait <= 0 {
				return true
			}
			late = time.After(wait)
		}
		select {
		case <-late:
		case <-changed:
		case <-c.closed:
			return false
		}
	}
}
