package tap

import (
	"net"
	"sync"
	"time"
)

// socket is the connection below TLS, on which the handshake is done.
type socket struct {
	conn net.Conn
	at   time.Time

	mu  sync.Mutex // guards why
	why error      // the argument of Kill
}

// reach notes the connection on which the handshake is about to begin.
func (s *State) reach(conn net.Conn) *socket {
	r := &socket{conn: conn, at: time.Now()}
	if s.userTimeout > 0 {
		limitUserTimeout(conn, s.userTimeout)
	}
	if tcp, ok := conn.(*net.TCPConn); ok && s.keepAlive != (KeepAlive{}) {
		s.keepAlive.set(tcp)
	}
	s.socket.Store(r)
	return r
}

// set has the kernel keep conn alive, unless it does so already and sooner.
func (k KeepAlive) set(conn *net.TCPConn) {
	if keptAliveAfter(conn) <= k.Idle {
		return
	}
	_ = conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: k.Idle, Interval: k.Interval, Count: k.Count}) // probes find a dead connection without it
}

// kill closes the connection and makes TCP discard what it has not sent, as the peer may
// not be there to receive it.
func (r *socket) kill(why error) {
	r.mu.Lock()
	first := r.why == nil
	if first {
		r.why = why
	}
	r.mu.Unlock()
	if !first {
		return
	}
	if tcp, ok := r.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails only on a closed connection
	}
	_ = r.conn.Close()
}

func (r *socket) killed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.why
}

// Progress says how much of what this side sent the peer's kernel has received.
type Progress struct {
	Acked uint64 // bytes acknowledged since the connection was made
	Left  uint64 // bytes in the send queue: not sent, or not acknowledged

	LastAck time.Duration // time since the last acknowledgement, one without new data included

	Resent    uint64        // packets sent again, SYNs included
	RoundTrip time.Duration // the kernel's estimate; 0 if not known
}

// Progress asks the kernel. ok is false on a platform that cannot tell, and for a connection
// that is not TCP.
func (s *State) Progress() (p Progress, ok bool) {
	r := s.socket.Load()
	if r == nil {
		return Progress{}, false
	}
	return progress(r.conn)
}

// Unread returns how many received bytes this process has not read from the kernel yet. ok
// is false on a platform that cannot tell, and for a connection that is not a socket.
func (s *State) Unread() (n int, ok bool) {
	r := s.socket.Load()
	if r == nil {
		return 0, false
	}
	return unread(r.conn)
}
