package grpcpooltest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/test/bufconn"
)

const (
	loopback = "127.0.0.1:0" // any free port

	// memoryTarget needs no resolver, and its authority is a name of our certificates.
	memoryTarget = "passthrough:///localhost"

	memoryBuffer = 1 << 18 // bytes of a connection in memory, each way
)

// Standalone is a [Server] without a test: it returns its errors, and the caller
// starts and stops it. Make one with [NewStandalone]. Its methods may be called
// concurrently.
type Standalone struct {
	// Health is what the health service says: SERVING, unless SetServingStatus sets
	// another status, of "" for the whole server. It stays the same when the server is
	// started again.
	Health *health.Server

	cfg      config
	meter    *meter
	accepted atomic.Int64
	certs    atomic.Pointer[Certs] // nil without mutual TLS

	mu     sync.Mutex // guards what follows
	addr   string
	limit  uint32
	run    *run   // nil while stopped
	ending []*run // those that are being stopped
	ended  bool   // the test is over: there will be no other run
}

// NewStandalone makes a server that has not begun to listen. Start and Listen tell
// what is wrong with its options, if anything is.
func NewStandalone(opts ...Option) *Standalone {
	s := &Standalone{Health: health.NewServer(), cfg: newConfig(opts), meter: newMeter(), addr: loopback}
	s.limit = s.cfg.limit
	s.certs.Store(s.cfg.certs)
	return s
}

var (
	errNotMade = errors.New("grpcpooltest: the server is not made; make one with NewServer or NewStandalone")
	errEnded   = errors.New("grpcpooltest: the test has ended")
)

// made reports whether the server was made by a constructor.
func (s *Standalone) made() bool { return s != nil && s.meter != nil }

// Start is Listen and Serve.
func (s *Standalone) Start(ctx context.Context) error {
	if err := s.Listen(ctx); err != nil {
		return err
	}
	s.Serve()
	return nil
}

// Listen binds a free port of the loopback address, the same each time. Clients
// may connect from here on and are served after Serve. It is an error if the server
// listens already.
func (s *Standalone) Listen(ctx context.Context) error {
	if !s.made() {
		return errNotMade
	}
	if s.cfg.err != nil {
		return s.cfg.err
	}
	if certs := s.certs.Load(); certs != nil {
		if _, err := certs.ServerTLS(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return errEnded
	}
	if s.run != nil {
		return errors.New("grpcpooltest: the server listens already; stop it first")
	}
	if s.cfg.inMemory {
		s.run = newRun(bufconn.Listen(memoryBuffer), &s.accepted)
		return nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.addr) // at once: the address is numeric
	if err != nil {
		return fmt.Errorf("grpcpooltest: %w", err)
	}
	s.addr = l.Addr().String()
	s.run = newRun(l, &s.accepted)
	return nil
}

// Serve begins to serve. It does nothing if the server does not listen, or serves
// already.
func (s *Standalone) Serve() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run != nil {
		s.run.serve(s.newServer)
	}
}

// newServer makes a gRPC server. s.mu is held.
func (s *Standalone) newServer() *grpc.Server {
	opts := []grpc.ServerOption{grpc.WaitForHandlers(true)}
	if !s.cfg.noCounts {
		opts = append(opts, grpc.StatsHandler(s.meter))
	}
	if s.limit > 0 {
		opts = append(opts, grpc.MaxConcurrentStreams(s.limit))
	}
	if creds := s.credentials(); creds != nil {
		opts = append(opts, grpc.Creds(creds))
	}
	server := grpc.NewServer(slices.Concat(opts, s.cfg.options)...)
	s.registerServices(server)
	return server
}

// Stop closes the listener and every connection, and waits for the handlers. Calls
// that are under way fail with Unavailable. It does nothing if the server is stopped,
// and returns what went wrong while it served.
func (s *Standalone) Stop() error { return s.stop((*grpc.Server).Stop) }

// GracefulStop closes the listener, tells the clients to go and waits until their
// calls have ended. A Stop meanwhile ends the calls.
func (s *Standalone) GracefulStop() error { return s.stop((*grpc.Server).GracefulStop) }

// end is the last Stop.
func (s *Standalone) end() error {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	return s.Stop()
}

func (s *Standalone) stop(how func(*grpc.Server)) error {
	s.mu.Lock()
	if s.run != nil {
		s.ending = append(s.ending, s.run)
		s.run = nil
	}
	ending := slices.Clone(s.ending)
	s.mu.Unlock()
	var err error
	for _, r := range ending {
		err = errors.Join(err, r.stop(how))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = slices.DeleteFunc(s.ending, func(r *run) bool { return slices.Contains(ending, r) })
	return err
}

// GoAway tells the clients of every connection that there is now to go (GOAWAY), as a
// server with a limit on their age does. Calls under way may finish, and new
// connections are served. GoAway does not wait for any of it.
func (s *Standalone) GoAway() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run != nil {
		s.run.succeed(s.newServer, true)
	}
}

// SetStreamLimit changes how many calls at a time the connections to come may have; 0
// is no limit. Open connections keep theirs: GoAway replaces them. The servers of the
// package h2test change the limit of open connections.
func (s *Standalone) SetStreamLimit(n uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = n
	if s.run != nil {
		s.run.succeed(s.newServer, false)
	}
}

// UseCerts serves other certificates, and accepts the clients of their authority, from
// the next handshake on. Open connections stay. It is an error if the server was not made
// with WithMutualTLS or WithCerts, or if certs cannot be used.
func (s *Standalone) UseCerts(certs *Certs) error {
	if certs == nil || s.certs.Load() == nil {
		return errors.New("grpcpooltest: UseCerts needs certificates, and a server of WithMutualTLS or WithCerts")
	}
	if _, err := certs.ServerTLS(); err != nil {
		return err
	}
	s.certs.Store(certs)
	return nil
}

// Certs is what the server serves mutual TLS with: the last ones of UseCerts. It is nil
// unless the server was made with WithMutualTLS or WithCerts.
func (s *Standalone) Certs() *Certs { return s.certs.Load() }

// credentials are the server's. They are nil if the program sets its own, or none.
func (s *Standalone) credentials() credentials.TransportCredentials {
	switch {
	case s.cfg.tls != nil:
		return credentials.NewTLS(s.cfg.tls)
	case s.cfg.certs != nil:
		return newServerCredentials(&s.certs)
	default:
		return nil
	}
}

// Addr is the address that the server listens at, "host:port". In memory it means
// nothing.
func (s *Standalone) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// Target is what a client dials with the server's DialOptions.
func (s *Standalone) Target() string {
	if s.cfg.inMemory {
		return memoryTarget
	}
	return s.Addr()
}

// DialOptions are what a client needs to reach the server, for grpc.NewClient,
// scale.NewClient or grpcpool.WithDialOptions: credentials, unless the server was made
// with WithTLS, and the way into memory. They end with more, which wins: such as a
// [Link]'s DialOption.
//
// Their credentials are fixed, and replace those of a grpcpool.Factory. To test a client
// with its own credentials, such as ones that are renewed, leave DialOptions out and
// reach a server in memory by grpc.WithContextDialer(server.Dial).
func (s *Standalone) DialOptions(more ...grpc.DialOption) []grpc.DialOption {
	var opts []grpc.DialOption
	switch certs := s.certs.Load(); {
	case certs != nil:
		opts = append(opts, grpc.WithTransportCredentials(certs.clientCredentials()))
	case s.cfg.tls == nil:
		opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	if s.cfg.inMemory {
		opts = append(opts, grpc.WithContextDialer(s.Dial))
	}
	return append(opts, more...)
}

// Dial connects to the server, for grpc.WithContextDialer and [NewLink]. It is refused
// while the server is stopped. The address does not matter.
func (s *Standalone) Dial(ctx context.Context, _ string) (net.Conn, error) {
	if !s.cfg.inMemory {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.Addr())
		if err != nil {
			return nil, fmt.Errorf("grpcpooltest: %w", err)
		}
		return conn, nil
	}
	s.mu.Lock()
	r := s.run
	s.mu.Unlock()
	if r == nil {
		return nil, refused()
	}
	lis, ok := r.listener.(*bufconn.Listener)
	if !ok {
		return nil, refused()
	}
	conn, err := lis.DialContext(ctx)
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("grpcpooltest: dialling in memory: %w", err)
	default: // stopped in between
		return nil, refused()
	}
}

// refused is what a dial ends with where nothing listens.
func refused() error {
	return fmt.Errorf("grpcpooltest: dialling in memory: %w", syscall.ECONNREFUSED)
}

// Accepted is how many connections the server has accepted since it was made, whatever
// became of them.
func (s *Standalone) Accepted() int { return int(s.accepted.Load()) }

// Counts is what the server has seen since it was made.
func (s *Standalone) Counts() Counts {
	if !s.made() {
		return Counts{}
	}
	return s.meter.counts()
}

// WaitOpen waits until n connections are open, by [Counts].Open. The error says how many
// are open when ctx ends, and wraps the cause of its end.
func (s *Standalone) WaitOpen(ctx context.Context, n int) error {
	if !s.made() {
		return errNotMade
	}
	return s.meter.waitOpen(ctx, n)
}
