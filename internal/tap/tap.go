// Package tap observes the bytes of one gRPC connection and reports what grpc-go does not:
// how many streams the server allows, that it sent GOAWAY, when bytes last came from
// it, and why the connection ended. An LB policy gives each SubConn a [State] of its own:
//
//	state := tap.New(tap.Events{
//		Limit: func(limit uint32) { ... }, // the server allows so many streams
//	})
//	opts.CredsBundle = tap.Bundle(creds, nil, state)
//	sc, err := cc.NewSubConn(addrs, opts)
//	...
//	if cause := state.Cause(); cause != nil {
//		log.Print(cause) // such as a TLS alert
//	}
//
// A tap sits between the transport and the connection that the handshake returns, with or
// without TLS. It reads the headers of all frames, and the payloads of three kinds from the
// server (SETTINGS, GOAWAY, WINDOW_UPDATE). It changes nothing: the transport reads the same
// bytes in the same pieces. There are three exceptions:
//
//   - [State.Ask] adds a frame to those that the transport sends.
//   - [State.WithHold] hides the first GOAWAY of a graceful end from the transport.
//   - The tap ends the connection on [State.Kill], when the first bytes from the peer are
//     not HTTP/2, and when the peer floods the connection (see [ErrFlood]).
//
// grpc-go reports a connection READY only after the server's first SETTINGS has passed the
// tap, so the limit of a connection in use is always known.
//
// Of the optional methods of the connection below it a tap keeps SyscallConn, for channelz,
// and ReadOnReady, with which grpc-go's transport reads Linux sockets without holding a
// buffer (see package internal/ready). It does not offer ReadFrom and WriteTo, which the
// transport does not use.
package tap

import (
	"crypto/tls"
	"math"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
)

// Unlimited is the limit of a server whose SETTINGS name none, which means that there is
// none (RFC 9113, section 6.5.2).
const Unlimited = math.MaxUint32

// lastStreamIDMax is the highest identifier that a stream can have.
const lastStreamIDMax = 1<<31 - 1

// GoAway is a server's notice that it accepts no new streams on a connection (RFC 9113,
// section 6.8).
type GoAway struct {
	LastStreamID uint32 // streams above it were not processed and may be retried
	Code         uint32 // an HTTP/2 error code; 0 is NO_ERROR

	// Debug is the beginning of the debug data, at most 256 bytes. It is unchanged text of
	// the peer: escape it before you show it.
	Debug string

	// Held is true if the transport does not see this GOAWAY; see WithHold.
	Held bool
}

// Graceful reports whether g is the first of the two GOAWAYs with which a server shuts down
// gracefully. It names no last stream, because the server still accepts streams that are on
// their way; the second GOAWAY names it.
func (g GoAway) Graceful() bool {
	return g.LastStreamID == lastStreamIDMax && g.Code == 0
}

// Events are functions that the tap calls; each may be nil. They run on the transport's
// reader goroutine, before the transport sees the frame. They must not block, as that would
// block the whole connection. The methods of the State already return the new values.
type Events struct {
	Limit  func(limit uint32) // called for the first SETTINGS and for every change of the limit
	GoAway func(g GoAway)     // called for every GOAWAY
}

// State is what is known about one connection. Its methods may be called concurrently.
//
// When a SubConn connects again, its State begins anew: it is always about the latest
// connection whose handshake succeeded, and no longer about an earlier one.
type State struct {
	events      Events
	userTimeout time.Duration          // 0: the system's
	keepAlive   KeepAlive              // zero: the program's or the system's
	hold        bool                   // see hold.go
	socket      atomic.Pointer[socket] // nil until a handshake begins
	link        atomic.Pointer[link]   // nil until attached
}

// New returns the State of a connection that is not there yet.
func New(ev Events) *State {
	return &State{events: ev}
}

// WithUserTimeout makes the kernel end the connection if the peer's kernel does not
// acknowledge data for d (TCP_USER_TIMEOUT, RFC 5482), on platforms that can do so. A shorter
// time that is set already stays. Call WithUserTimeout before the State is used.
func (s *State) WithUserTimeout(d time.Duration) *State {
	s.userTimeout = d
	return s
}

// KeepAlive is when the kernel asks the peer's kernel whether a connection is still there
// (SO_KEEPALIVE). If it does not answer, the connection ends.
type KeepAlive struct {
	Idle     time.Duration // without data, until the first question
	Interval time.Duration // between questions
	Count    int           // questions without an answer that end the connection
}

// WithKeepAlive has the kernel keep the connection alive, if it is TCP. A connection whose
// questions begin sooner stays as it is, on platforms that can tell. Call WithKeepAlive
// before the State is used.
func (s *State) WithKeepAlive(k KeepAlive) *State {
	s.keepAlive = k
	return s
}

// Reached returns when the handshake began on a connection, or the zero Time if it has not
// begun.
func (s *State) Reached() time.Time {
	if r := s.socket.Load(); r != nil {
		return r.at
	}
	return time.Time{}
}

// Kill closes the connection at once, during the handshake or after it, without informing
// the peer. why becomes the Cause and the error of the transport, and so of the RPCs on the
// connection. Unlike Close, Kill does not wait for a peer that does not read. Before the
// handshake has begun it does nothing.
func (s *State) Kill(why error) {
	if l := s.link.Load(); l != nil {
		l.ending.kill(why)
	}
	if r := s.socket.Load(); r != nil {
		r.kill(why)
	}
}

// Attached reports whether there is a tap on the connection. If there is none although the
// SubConn is READY, something has dropped the credentials that attach it, and nothing is
// known about that connection.
func (s *State) Attached() bool { return s.link.Load() != nil }

// Limit returns how many streams the server allows at once: its latest
// SETTINGS_MAX_CONCURRENT_STREAMS, or Unlimited if it named none. The result has no meaning
// before the State is Settled.
func (s *State) Limit() uint32 {
	if l := s.link.Load(); l != nil {
		return l.limit.Load()
	}
	return Unlimited
}

// Settled reports whether the server's first SETTINGS has been seen.
func (s *State) Settled() bool {
	l := s.link.Load()
	return l != nil && l.settled.Load()
}

// LastHeard returns when any bytes last came from the peer, or the zero Time if none came.
// Its resolution is that of the system's monotonic clock: nanoseconds on Linux and macOS, up
// to 15 ms on Windows.
func (s *State) LastHeard() time.Time {
	if l := s.link.Load(); l != nil {
		return l.lastHeard()
	}
	return time.Time{}
}

// LastGoAway returns the latest GOAWAY, if there was one.
func (s *State) LastGoAway() (GoAway, bool) {
	if l := s.link.Load(); l != nil {
		if g := l.lastGoAway.Load(); g != nil {
			return *g, true
		}
	}
	return GoAway{}, false
}

// Cause returns why the connection ended, as far as its bytes show. It is nil while the
// connection is open and when this side closed it. If there are several errors it is the one
// that explains most. In this order: what the tap found wrong with the peer's bytes
// (ErrHTTP1, ErrTLS, ErrNotHTTP2, ErrFlood) or the argument of Kill, an alert of the peer's
// TLS, an error of the network, the end of the stream, a broken pipe. It wraps the error of
// the connection.
func (s *State) Cause() error {
	if l := s.link.Load(); l != nil {
		return l.ending.cause()
	}
	return nil
}

// TLS returns the connection's TLS state after the handshake. ok is false without TLS, and
// for credentials whose AuthInfo is not a [credentials.TLSInfo].
func (s *State) TLS() (state tls.ConnectionState, ok bool) {
	if l := s.link.Load(); l != nil && l.tls != nil {
		return l.tls.State, true
	}
	return tls.ConnectionState{}, false
}

// LocalAddr returns this side's address, nil before the tap is attached.
func (s *State) LocalAddr() net.Addr {
	if l := s.link.Load(); l != nil {
		return l.local
	}
	return nil
}

// RemoteAddr returns the peer's address, nil before the tap is attached.
func (s *State) RemoteAddr() net.Addr {
	if l := s.link.Load(); l != nil {
		return l.remote
	}
	return nil
}

// Wrap attaches s to conn, whose handshake is done and returned info, which may be nil. It
// returns the connection to use in place of conn. Nothing may have been read from conn since
// the handshake.
//
// One goroutine at a time may call Read or ReadOnReady of the result, and one at a time
// Write, as frames have to be written whole and in order. The other methods are as
// concurrent as those of conn.
func (s *State) Wrap(conn net.Conn, info credentials.AuthInfo) net.Conn {
	l := &link{
		state:  s,
		start:  time.Now(),
		local:  conn.LocalAddr(),
		remote: conn.RemoteAddr(),
	}
	l.limit.Store(Unlimited)
	if t, ok := info.(credentials.TLSInfo); ok {
		l.tls = &t
	}
	s.link.Store(l)
	if r := s.socket.Load(); r != nil { // after the Store, as Kill looks at both in the opposite order
		l.ending.takeOver(r)
	}
	return wrap(conn, l)
}

// link is what a State knows about one of its connections.
type link struct {
	state         *State
	start         time.Time
	local, remote net.Addr
	tls           *credentials.TLSInfo // nil without TLS

	limit      atomic.Uint32
	settled    atomic.Bool
	bytesTaken atomic.Bool  // readAlert has taken bytes that the transport has not seen
	heard      atomic.Int64 // nanoseconds from start to the last read, plus one; 0 if none
	sent       atomic.Int64 // bytes
	lastGoAway atomic.Pointer[GoAway]
	ending     ending
	ledger     ledger
	questions  questions
	tally      tally // used by the goroutine that reads
}

// current reports whether l is still the connection of its State.
func (l *link) current() bool { return l.state.link.Load() == l }

// noteRead notes the time of a read. It is most of what the tap adds to the cost of a read
// (BenchmarkRead). It uses time.Since, which reads one clock; time.Now reads two.
func (l *link) noteRead() (now time.Duration) {
	now = time.Since(l.start)
	l.heard.Store(int64(now) + 1)
	return now
}

func (l *link) lastHeard() time.Time {
	if d := l.heard.Load(); d > 0 {
		return l.start.Add(time.Duration(d - 1))
	}
	return time.Time{}
}

// settings implements frameSink. A later SETTINGS without a limit does not change it (RFC
// 9113, section 6.5).
func (l *link) settings(limit uint32, named bool) {
	first := !l.settled.Load()
	if !named {
		limit = l.limit.Load()
	}
	changed := l.limit.Swap(limit) != limit
	l.settled.Store(true)
	if f := l.state.events.Limit; f != nil && (first || changed) && l.current() {
		f(limit)
	}
}

// frame implements frameSink.
func (l *link) frame(f frame) {
	l.tally.count(f)
	switch f.kind {
	case typeData, typeHeaders:
		if f.flags&flagEndStream != 0 {
			l.ledger.end(f.stream)
		}
	case typeRSTStream:
		l.ledger.end(f.stream)
	}
}

// windowUpdate implements frameSink.
func (l *link) windowUpdate(stream, increment uint32) { l.ledger.returnWindow(stream, increment) }

// acknowledged implements frameSink.
func (l *link) acknowledged() { l.questions.acknowledged() }

// goAway implements frameSink.
func (l *link) goAway(g GoAway) {
	l.lastGoAway.Store(&g)
	if f := l.state.events.GoAway; f != nil && l.current() {
		f(g)
	}
}
