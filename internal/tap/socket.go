package tap

import (
	"net"
	"sync"
	"time"
)

// socket is what a handshake is done on: the connection below TLS.
type socket struct {
	conn net.Conn
	at   time.Time

	mu  sync.Mutex // guards why
	why error      // of Kill
}

// reach notes the connection that the handshake is about to begin on.
func (s *State) reach(conn net.Conn) *socket {
	r := &socket{conn: conn, at: time.Now()}
	if s.userTimeout > 0 {
		limitUserTimeout(conn, s.userTimeout)
	}
	s.socket.Store(r)
	return r
}

// kill closes the connection, and has TCP throw away what it has not sent: the
// peer may not be there to take it.
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
		_ = tcp.SetLinger(0) // fails on a closed connection only
	}
	_ = r.conn.Close()
}

func (r *socket) killed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.why
}

// Progress is how far the peer's kernel has come in taking what this side sent.
type Progress struct {
	Acked uint64 // bytes acknowledged since the connection was made
	Left  uint64 // bytes sent or to be sent, and not acknowledged

	LastAck time.Duration // since the peer's kernel said anything, be it that it has no room

	Resent    uint64        // packets sent more than once, those that ask for a connection included
	RoundTrip time.Duration // as the kernel has it; 0 if it is not known
}

// Progress asks the kernel. It is false where the platform does not tell, and for
// connections that are not TCP's.
func (s *State) Progress() (Progress, bool) {
	r := s.socket.Load()
	if r == nil {
		return Progress{}, false
	}
	return progress(r.conn)
}

// Unread is how many bytes have come from the peer and wait in the kernel for this
// process to read them. It is false where the platform does not tell, and for
// connections that are not sockets.
func (s *State) Unread() (int, bool) {
	r := s.socket.Load()
	if r == nil {
		return 0, false
	}
	return unread(r.conn)
}
