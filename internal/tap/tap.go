// Package tap watches the bytes under one gRPC connection and says what grpc-go
// keeps to itself: how many streams the server allows, that it sent GOAWAY, when
// it was last heard, and the TLS alert that ended the connection.
//
// A tap sits between the transport and the connection that the handshake left
// behind, TLS or not. It reads the headers of the frames that pass, opens three kinds
// of those from the server (SETTINGS, GOAWAY, WINDOW_UPDATE), and changes nothing: the
// transport reads the same bytes in the same pieces. It adds a frame of its own to
// what the transport sends when it is told to (see [State.Ask]). It ends a connection
// when it is told to (see [State.Kill]), when what the peer says first is not HTTP/2,
// and when the peer floods it (see [ErrFlood]).
//
// A [State] belongs to one SubConn and so to one connection at a time. Give the
// SubConn the [Bundle] of its State:
//
//	state := tap.New(tap.Events{Limit: onLimit})
//	opts.CredsBundle = tap.Bundle(creds, nil, state)
//	sc, err := cc.NewSubConn(addrs, opts)
//
// grpc-go reports a connection READY only after the server's first SETTINGS has
// passed the tap, so the limit of a connection in use is always known.
//
// What a tap keeps of the connection below it: SyscallConn, for channelz, and the
// reads without a pinned buffer that grpc-go's transport does on Linux sockets
// (see package internal/ready). ReadFrom and WriteTo are not offered; the transport uses
// neither.
package tap

import (
	"crypto/tls"
	"math"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
)

// Unlimited is the limit of a server that names none in its SETTINGS: there is
// no limit then (RFC 9113, section 6.5.2).
const Unlimited = math.MaxUint32

// lastStreamIDMax is the highest identifier that a stream can have.
const lastStreamIDMax = 1<<31 - 1

// GoAway is a server's notice that it takes no new streams on a connection
// (RFC 9113, section 6.8).
type GoAway struct {
	LastStreamID uint32 // streams above it were not processed and may be retried
	Code         uint32 // an HTTP/2 error code; 0 is NO_ERROR

	// Debug is the beginning of the debug data, at most 256 bytes. It is the
	// peer's text, as it came: quote it where it is printed.
	Debug string

	// Held says that the transport was not told; see WithHold.
	Held bool
}

// Graceful reports whether g is the first of the two GOAWAYs with which a server
// shuts down gracefully. It names no last stream, since streams that are on
// their way are still welcome; the second GOAWAY will name it.
func (g GoAway) Graceful() bool {
	return g.LastStreamID == lastStreamIDMax && g.Code == 0
}

// Events are called as things happen. Either may be nil. They run on the
// transport's reader goroutine, before the transport sees the frame, and hold up
// the whole connection: they must not block. The State already says what they
// are told.
type Events struct {
	Limit  func(limit uint32) // the first SETTINGS, and every change after it
	GoAway func(g GoAway)     // every GOAWAY
}

// State is what is known of one connection. All its methods may be called
// concurrently.
//
// When a SubConn connects again, its State starts anew: everything it says is
// about the latest connection that got through its handshake, and a tap on an
// earlier connection no longer has a say.
type State struct {
	events      Events
	userTimeout time.Duration          // 0: as the system has it
	hold        bool                   // see hold.go
	socket      atomic.Pointer[socket] // nil until there is a connection to shake hands on
	link        atomic.Pointer[link]   // nil until attached
}

// New makes the State of a connection to come.
func New(ev Events) *State {
	return &State{events: ev}
}

// WithUserTimeout has data that the peer's kernel does not acknowledge for d end
// the connection (TCP_USER_TIMEOUT, RFC 5482), where the platform can do that; a
// shorter time that is set already stays. It must come before the State is used.
func (s *State) WithUserTimeout(d time.Duration) *State {
	s.userTimeout = d
	return s
}

// Reached is when there was a connection to shake hands on; the zero Time if there
// was none yet.
func (s *State) Reached() time.Time {
	if r := s.socket.Load(); r != nil {
		return r.at
	}
	return time.Time{}
}

// Kill ends the connection at once, in the handshake or after it, without a word
// to the peer. The transport, and so the RPCs on the connection, are told why, and
// it becomes the Cause. Unlike Close it does not wait for a peer that does not
// read. It does nothing before the connection is Reached.
func (s *State) Kill(why error) {
	if l := s.link.Load(); l != nil {
		l.ending.kill(why)
	}
	if r := s.socket.Load(); r != nil {
		r.kill(why)
	}
}

// Attached reports whether a tap sits on the connection. A State that stays
// without one though its SubConn is READY belongs to credentials that did not
// keep the tap; nothing is known of such a connection.
func (s *State) Attached() bool { return s.link.Load() != nil }

// Limit is how many streams the server allows at once: its latest
// SETTINGS_MAX_CONCURRENT_STREAMS, Unlimited if it named none. It means nothing
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

// LastHeard is when bytes last came from the peer, whatever they were; the zero
// Time if none came. It has the resolution of the system's monotonic clock:
// nanoseconds on Linux and macOS, up to 15 ms on Windows.
func (s *State) LastHeard() time.Time {
	if l := s.link.Load(); l != nil {
		return l.lastHeard()
	}
	return time.Time{}
}

// LastGoAway is the latest GOAWAY, if there was one.
func (s *State) LastGoAway() (GoAway, bool) {
	if l := s.link.Load(); l != nil {
		if g := l.lastGoAway.Load(); g != nil {
			return *g, true
		}
	}
	return GoAway{}, false
}

// Cause is why the connection ended, as far as the bytes tell. It is nil while
// the connection lives and when this side closed it. The most telling error
// wins: an alert of the peer's TLS over what the tap makes of the peer's bytes
// (ErrHTTP1, ErrTLS, ErrNotHTTP2, ErrFlood), that over an error of
// the network, that over the end of the stream, and that over a broken pipe. The
// error wraps what the connection returned.
func (s *State) Cause() error {
	if l := s.link.Load(); l != nil {
		return l.ending.cause()
	}
	return nil
}

// TLS is the connection's TLS state after the handshake. It is false without TLS
// and for credentials that describe it by anything but [credentials.TLSInfo].
func (s *State) TLS() (tls.ConnectionState, bool) {
	if l := s.link.Load(); l != nil && l.tls != nil {
		return l.tls.State, true
	}
	return tls.ConnectionState{}, false
}

// LocalAddr is this side's address, nil before the tap is attached.
func (s *State) LocalAddr() net.Addr {
	if l := s.link.Load(); l != nil {
		return l.local
	}
	return nil
}

// RemoteAddr is the peer's address, nil before the tap is attached.
func (s *State) RemoteAddr() net.Addr {
	if l := s.link.Load(); l != nil {
		return l.remote
	}
	return nil
}

// Wrap attaches s to conn, whose handshake is done and gave info (which may be
// nil), and returns the connection to use in its place. Nothing may have been
// read from conn since the handshake.
//
// Read and ReadOnReady of the result belong to one goroutine at a time, and so does
// Write, since what is written has to be whole frames in their order; the rest of it is as concurrent as conn.
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
	if r := s.socket.Load(); r != nil { // after the Store: Kill looks the other way round
		l.ending.takeOver(r)
	}
	return wrap(conn, l)
}

// link is what a State knows of one of its connections.
type link struct {
	state         *State
	start         time.Time
	local, remote net.Addr
	tls           *credentials.TLSInfo // nil without TLS

	limit      atomic.Uint32
	settled    atomic.Bool
	holed      atomic.Bool  // bytes were taken that the transport has not seen
	heard      atomic.Int64 // nanoseconds from start to the last read, plus one; 0 if none
	sent       atomic.Int64 // bytes
	lastGoAway atomic.Pointer[GoAway]
	ending     ending
	ledger     ledger
	asking     asking
	tally      tally // used by the goroutine that reads
}

// current reports whether l is still what its State speaks of.
func (l *link) current() bool { return l.state.link.Load() == l }

// hear notes the time. It is most of what the tap adds to a read (BenchmarkRead),
// hence time.Since: it reads the monotonic clock only, time.Now two clocks.
func (l *link) hear() (now time.Duration) {
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

// settings implements frameSink. A later SETTINGS that does not name the limit
// leaves it as it is (RFC 9113, section 6.5).
func (l *link) settings(limit uint32, told bool) {
	first := !l.settled.Load()
	if !told {
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
func (l *link) windowUpdate(stream, increment uint32) { l.ledger.giveBack(stream, increment) }

// acknowledged implements frameSink.
func (l *link) acknowledged() { l.asking.acknowledged() }

// goAway implements frameSink.
func (l *link) goAway(g GoAway) {
	l.lastGoAway.Store(&g)
	if f := l.state.events.GoAway; f != nil && l.current() {
		f(g)
	}
}
