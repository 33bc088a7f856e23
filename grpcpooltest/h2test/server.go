// Package h2test has a strict HTTP/2 server for tests of gRPC clients. It answers
// every unary call with an empty message, and counts what a real server silently
// tolerates: streams beyond the limit in force.
//
// On demand it does what a real server may do at any time: it changes the limit, sends
// GOAWAY, and breaks the protocol (see [Fault]):
//
//	server := h2test.NewServer(t, h2test.WithInMemory(), h2test.WithLimit(10))
//	cc, err := grpc.NewClient(server.Target(), server.DialOptions()...)
//	...
//	server.SetLimit(5)
//	// make calls at a time
//	if n := server.Counts().Violations; n > 0 {
//		t.Errorf("%d streams beyond the limit", n)
//	}
//
// Unless a test is about HTTP/2, use a server of package grpcpooltest: it is gRPC's own,
// and has services. Its [grpcpooltest.Link] adds faults of the network to a server of
// this package too: give [Server.Dial] to [grpcpooltest.NewLink].
//
// Do not use the server for clients that are not trusted: frames for a client that does
// not read use memory without a bound, except those of floods.
package h2test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// NoLimit is the limit of a server that advertises none.
const NoLimit = -1

// CallInfo describes a call that has arrived.
type CallInfo struct {
	Seq    int64  // its place among all calls of the server, from 1
	Conn   int64  // its connection's place among all connections, from 1
	Stream uint32 // its stream on that connection
	Method string // such as "/grpc.health.v1.Health/Check"
	Order  string // the metadata "x-order", for tests of the order of calls
}

// Counts is what a Server has seen so far.
type Counts struct {
	Connections int64 // ever accepted, whatever became of them
	Open        int64 // open now
	Calls       int64 // streams taken
	Violations  int64 // streams taken that were beyond the limit in force
	MaxStreams  int64 // the most streams that one connection had at once
}

// Option configures a Server. A mistake in one fails the test in [NewServer]; [Start]
// leaves such an option out.
type Option func(*Server)

// WithLimit sets the limit that connections advertise, 0 included. Negative, the
// default, advertises none.
func WithLimit(n int) Option { return func(s *Server) { s.limit = n } }

// WithDelay sets the time from the end of a request to its answer. The default is 0. A
// delay of 0 or less is none.
func WithDelay(d time.Duration) Option { return func(s *Server) { s.delay = d } }

// WithTLS serves TLS, and negotiates "h2" whatever cfg says about protocols. A nil cfg is
// a mistake.
func WithTLS(cfg *tls.Config) Option {
	return func(s *Server) {
		if cfg == nil {
			s.mistake = errors.New("h2test: WithTLS: the configuration is nil")
			return
		}
		s.tls = cfg.Clone()
		s.tls.NextProtos = []string{"h2"}
	}
}

// WithGrace sets the time between the two GOAWAYs of a graceful end (see
// [Server.GoAway]). The default is 0.
func WithGrace(d time.Duration) Option { return func(s *Server) { s.grace = d } }

// WithFault makes new connections misbehave until SetFault changes that. An unknown fault
// is a mistake.
func WithFault(f Fault) Option {
	return func(s *Server) {
		if f.String() == unknownFault {
			s.mistake = fmt.Errorf("h2test: WithFault(%d): unknown fault", f)
			return
		}
		s.fault = f
	}
}

// WithOnCall makes the server call f for every call when it arrives: in order on one
// connection, concurrently across connections. The connection waits for f, and so does
// Close. A nil f is a mistake.
func WithOnCall(f func(CallInfo)) Option {
	return func(s *Server) {
		if f == nil {
			s.mistake = errors.New("h2test: WithOnCall: the function is nil")
			return
		}
		s.onCall = f
	}
}

// Server is a running server. Its methods may be called concurrently.
type Server struct {
	listener net.Listener
	inMemory bool        // of NewServer
	tls      *tls.Config // nil without TLS
	grace    time.Duration
	onCall   func(CallInfo) // may be nil
	mistake  error          // in the options

	connections, calls, violations, maxStreams atomic.Int64

	quit       chan struct{}  // closed by Close
	goroutines sync.WaitGroup // grows only under mu and before closed, or from one of its own

	mu     sync.Mutex // guards all below
	limit  int        // negative: none
	delay  time.Duration
	fault  Fault
	conns  map[*conn]struct{}
	closed bool
}

// Start serves l until Close, which closes l too. [NewServer] makes the listener and
// calls Close by itself.
func Start(l net.Listener, opts ...Option) *Server {
	s := newServer(opts)
	s.listener = l
	s.goroutines.Go(s.accept)
	return s
}

func newServer(opts []Option) *Server {
	s := &Server{limit: NoLimit, quit: make(chan struct{}), conns: make(map[*conn]struct{})}
	for _, opt := range opts {
		if opt == nil {
			s.mistake = errors.New("h2test: an option is nil")
			continue
		}
		opt(s)
	}
	return s
}

// Addr is the listener's address.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Counts returns what the server has seen so far. It may be called after Close.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	open := len(s.conns)
	s.mu.Unlock()
	return Counts{
		Connections: s.connections.Load(),
		Open:        int64(open),
		Calls:       s.calls.Load(),
		Violations:  s.violations.Load(),
		MaxStreams:  s.maxStreams.Load(),
	}
}

// SetLimit advertises a new limit on every connection, and on those to come.
// A client may use a raised limit as soon as it is sent; a lowered one binds it
// from its acknowledgement, and then only for new streams. HTTP/2 has no way to
// take a limit back, so a negative n raises the limit of open connections to
// the highest there is.
func (s *Server) SetLimit(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = n
	for c := range s.conns {
		c.sendLimit(limitValue(n))
	}
}

// SetDelay changes the delay of calls to come.
func (s *Server) SetDelay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = d
}

// SetFault changes how connections to come misbehave. NoFault undoes it. Open connections
// stay as they are.
func (s *Server) SetFault(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// GoAway ends every connection that there is now, and takes new ones. Each gets
// a GOAWAY with its true last stream, and is closed when its streams are done.
// If graceful, each first gets one that names no last stream, and goes on taking
// streams for the time of grace.
func (s *Server) GoAway(graceful bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	for c := range s.conns {
		if !graceful {
			c.sendGoAway()
			continue
		}
		c.sendGracefulGoAway()
		s.goroutines.Go(func() {
			if c.sleep(s.grace) {
				c.sendGoAway()
			}
		})
	}
}

// Close closes the listener and every connection, and returns when all of the
// server's goroutines have ended.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		close(s.quit)
	}
	s.closed = true
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	_ = s.listener.Close()
	for _, c := range conns {
		c.cut()
	}
	s.goroutines.Wait()
}

func (s *Server) accept() {
	for {
		nc, err := s.listener.Accept()
		if err != nil {
			return // closed
		}
		number := s.connections.Add(1)
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			_ = nc.Close()
			return
		}
		if tcp, ok := nc.(*net.TCPConn); ok && s.fault == NeverReads {
			_ = tcp.SetReadBuffer(4 << 10) // the kernel may have its own idea
		}
		c := newConn(s, nc, number, s.fault)
		s.conns[c] = struct{}{}
		if s.fault != Silent && s.fault != HTTP1 {
			c.sendLimit(limitValue(s.limit)) // in the same breath, so that SetLimit cannot come between
		}
		s.goroutines.Go(c.serve)
		s.mu.Unlock()
	}
}

// forget drops a connection that has ended.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *Server) currentDelay() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.delay
}

// sawStreams keeps the most streams that a connection had.
func (s *Server) sawStreams(n int64) {
	for {
		most := s.maxStreams.Load()
		if n <= most || s.maxStreams.CompareAndSwap(most, n) {
			return
		}
	}
}
