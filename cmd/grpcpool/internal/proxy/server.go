// Package proxy passes gRPC calls through: whatever a client calls, unary or
// streaming, goes on over the connections of one pool, and what the server answers
// comes back. Messages are passed by reference and never decoded, nor decompressed.
//
// What passes: the method, the deadline, metadata (binary too), messages with
// their compression, the content subtype, headers as soon as they come, trailers,
// the status with its details, half-close, cancellation, and who waits for whom.
// What does not: what belongs to a connection, see isHop.
//
//	server.go    New, Serve, Reload, Shutdown; limits
//	handler.go   a call's way
//	upload.go    what the client sends
//	download.go  what the server sends
//	patience.go  how long a part of a call waits for the next
//	metadata.go  what is said about a call, and what of it goes on
//	codec.go     messages by reference
//	encoding.go  compressed messages, as they are
//	note.go      the encoding that the server answers in
//	memo.go      what is the same for many calls
//	upstream.go  the pool that calls go to
//	listen.go    where clients are listened to
//	guard.go     who is a client: uid, token, certificate
//	clients.go   how many there are
//	health.go    the health of the proxy itself
//	stats.go     what it has done so far
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/keepalive"

	"github.com/davidwartell/go-grpcpool/shared"
)

// Config says how a Server works. Upstream is needed, the rest has defaults.
type Config struct {
	// Upstream makes the pool that calls go to. Its channels must be made with
	// DialOptions. New calls it, and Reload.
	Upstream func() (*shared.Pool, error)

	MaxClients          int // connections from clients at a time; 0: 10,000
	MaxStreams          int // calls at a time; 0: 10,000
	MaxStreamsPerClient int // of these, on one client's connection; 0: 1,000
	MaxMessage          int // bytes of a message as it comes, compressed or not; 0: 64 MiB

	// HealthService is the name under which grpc.health.v1.Health answers for the
	// proxy itself: SERVING until Shutdown. "": all health checks pass through.
	HealthService string

	Logger *slog.Logger // nil: discard
}

const (
	defaultMaxClients          = 10_000
	defaultMaxStreams          = 10_000
	defaultMaxStreamsPerClient = 1_000
	defaultMaxMessage          = 64 << 20

	maxHeaderListSize = 64 << 10 // of a call's metadata, as RFC 9113 section 6.5.2 counts

	// How much may be on its way on a stream ahead of who reads it, from a client and
	// from the server, and on a connection. Left alone, gRPC finds out what the network
	// takes with a PING for every few messages, which costs small calls a wake-up on
	// either side. On one machine there is nothing to find out; for the server it is
	// 40 MB/s of a stream at 100 ms.
	clientWindow = 1 << 20
	serverWindow = 4 << 20
	connWindow   = 16 << 20

	maxConnectionIdle = 15 * time.Minute // of a client's

	// streamWorkers are goroutines whose stacks have grown, for short calls. When
	// all are busy each call gets a goroutine of its own.
	streamWorkers = 128
)

// Server is a proxy. Its methods may be called concurrently.
type Server struct {
	cfg         Config
	grpc        *grpc.Server
	upstream    upstream
	health      *health.Server    // nil: all health checks pass through
	callOptions []grpc.CallOption // of every call to the server

	clients clients
	shapes  shapes
	options memo[wire, []grpc.CallOption] // callOptions, and what else a call needs
	waits   waits
	counts  counts
}

// DialOptions are what the channels of Config.Upstream need.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStatsHandler(noteHandler{}),
		grpc.WithStaticStreamWindowSize(serverWindow), grpc.WithStaticConnWindowSize(connWindow),
		// The pool's own calls cannot read what passes through as it is.
		grpc.WithDefaultCallOptions(accept(nil)),
	}
}

// New makes a proxy that does not listen yet.
func New(cfg Config) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	for _, limit := range []struct {
		name      string
		value     *int
		otherwise int
	}{
		{"MaxClients", &cfg.MaxClients, defaultMaxClients},
		{"MaxStreams", &cfg.MaxStreams, defaultMaxStreams},
		{"MaxStreamsPerClient", &cfg.MaxStreamsPerClient, defaultMaxStreamsPerClient},
		{"MaxMessage", &cfg.MaxMessage, defaultMaxMessage},
	} {
		if *limit.value < 0 || *limit.value > math.MaxInt32-markSize {
			return nil, fmt.Errorf("proxy: %s is %d, want 0 for the default, or up to 2 Gi", limit.name, *limit.value)
		}
		if *limit.value == 0 {
			*limit.value = limit.otherwise
		}
	}
	s := &Server{cfg: cfg, clients: clients{most: int64(cfg.MaxClients), logger: cfg.Logger}}
	if cfg.HealthService != "" {
		s.health = newHealth(cfg.HealthService)
	}
	s.callOptions = []grpc.CallOption{
		grpc.ForceCodecV2(codec{}),
		grpc.MaxCallRecvMsgSize(cfg.MaxMessage + markSize),
		grpc.MaxCallSendMsgSize(math.MaxInt32),
	}
	s.grpc = grpc.NewServer(s.serverOptions()...)
	if err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Server) serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(guardCredentials{s.cfg.Logger}),
		grpc.InTapHandle(s.checkToken),
		grpc.StaticStreamWindowSize(clientWindow), grpc.StaticConnWindowSize(connWindow),
		grpc.ForceServerCodecV2(codec{}),
		grpc.UnknownServiceHandler(s.handle),
		grpc.MaxConcurrentStreams(uint32(s.cfg.MaxStreamsPerClient)), //nolint:gosec // New has checked its range
		grpc.MaxRecvMsgSize(s.cfg.MaxMessage + markSize),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxHeaderListSize(maxHeaderListSize),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.WaitForHandlers(true),
		grpc.ConnectionTimeout(10 * time.Second), // until HTTP/2 has begun
		// Who makes no calls costs a file descriptor. A client notices nothing: its
		// next call opens another connection.
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: maxConnectionIdle}),
		// Clients on this machine may ping as they like.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	}
}

// Serve serves the clients of l until Shutdown or Stop, when it returns nil. It
// closes l.
func (s *Server) Serve(l *Listener) error {
	if err := s.grpc.Serve(countedListener{l, &s.clients}); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("proxy: serving %s: %w", l.Addr(), err)
	}
	return nil
}

// Reload makes a new pool and sends calls there from now on. The calls on the old
// one go on to their end. If it cannot be made the old one stays.
func (s *Server) Reload() error {
	pool, err := s.cfg.Upstream()
	if err != nil {
		return err
	}
	if err := s.upstream.replace(pool); err != nil {
		_ = pool.Close() // new, and unused
		return err
	}
	return nil
}

// Shutdown takes no more calls, waits for those under way, and for no longer than
// ctx: then they end with Unavailable, and the error says how many there were.
// Health watches of the proxy itself are told NOT_SERVING, and ended.
func (s *Server) Shutdown(ctx context.Context) error {
	if s.health != nil {
		s.health.Shutdown()
	}
	drained := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(drained)
	}()
	var err error
	select {
	case <-drained:
	case <-ctx.Done():
		if n := s.counts.active.Load(); n > 0 {
			err = fmt.Errorf("proxy: shut down with %d calls under way: %w", n, context.Cause(ctx))
		}
		s.grpc.Stop()
		<-drained
	}
	s.waits.close()
	return errors.Join(err, s.upstream.close()) //nolint:contextcheck // no call is left, so that there is nothing to wait for
}
