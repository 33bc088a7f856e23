// Package proxy forwards gRPC calls, unary and streaming, over the connections of one
// pool. It passes messages on by reference, and neither decodes nor decompresses them.
//
//	server, err := proxy.New(proxy.Config{Upstream: newPool})
//	l, err := proxy.Listen(ctx, "unix", "/run/api.sock", proxy.Access{})
//	go server.Serve(l)
//	...
//	err = server.Shutdown(ctx)
//
// These pass through: the method, the deadline, metadata (binary too), messages with
// their compression, the content subtype, headers as soon as they arrive, trailers, the
// status with its details, half-close, cancellation, and flow control. Headers that
// belong to one connection do not.
//
//	server.go    New, Serve, Reload, Shutdown; limits
//	handler.go   the way of a call
//	upload.go    what the client sends
//	download.go  what the server sends
//	patience.go  how long a part of a call waits for the next
//	metadata.go  the headers of a call, and which are forwarded
//	codec.go     messages by reference
//	encoding.go  compressed messages, unchanged
//	note.go      the encoding of the server's answer
//	memo.go      a bounded cache
//	upstream.go  the pool
//	listen.go    where the proxy listens
//	guard.go     who may connect: uid, token, certificate
//	clients.go   how many connect
//	health.go    the health of the proxy itself
//	stats.go     counts and metrics
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

	"github.com/davidwartell/go-grpcpool/internal/logline"
	"github.com/davidwartell/go-grpcpool/shared"
)

// Config configures a Server. Upstream is required; the rest has defaults.
type Config struct {
	// Upstream makes the pool that calls go to. Its channels must be made with
	// DialOptions. New and Reload call it.
	Upstream func() (*shared.Pool, error)

	MaxClients          int // connections from clients; 0: 10,000
	MaxStreams          int // concurrent calls; 0: 10,000
	MaxStreamsPerClient int // concurrent calls on one client's connection; 0: 1,000
	MaxMessage          int // bytes of a message as sent, compressed or not; 0: 64 MiB

	// HealthService is the name of the service whose health checks the proxy answers
	// for itself: SERVING until Shutdown. It forwards all others. "": it forwards all.
	HealthService string

	Logger *slog.Logger // nil: discard
}

const (
	defaultMaxClients          = 10_000
	defaultMaxStreams          = 10_000
	defaultMaxStreamsPerClient = 1_000
	defaultMaxMessage          = 64 << 20

	maxHeaderListSize = 64 << 10 // of a call's metadata, as RFC 9113 section 6.5.2 counts

	// Flow control windows: of a stream from a client, of a stream from the server, and
	// of a connection. By default gRPC measures the bandwidth with a PING for every few
	// messages, which costs small calls a wake-up on each side. Clients are on the same
	// machine, where there is nothing to measure. For the server the window allows
	// 40 MB/s per stream at 100 ms.
	clientWindow = 1 << 20
	serverWindow = 4 << 20
	connWindow   = 16 << 20

	maxConnectionIdle = 15 * time.Minute // of a client's connection

	// streamWorkers is the number of goroutines that are reused for short calls, so that
	// their stacks need not grow again. When all are busy each call gets a new one.
	streamWorkers = 128
)

// Server is a proxy. Its methods are safe for concurrent use.
type Server struct {
	cfg         Config
	grpc        *grpc.Server
	upstream    upstream
	health      *health.Server    // nil: all health checks pass through
	callOptions []grpc.CallOption // for every call to the server

	clients clients
	shapes  shapes
	options memo[wire, []grpc.CallOption] // callOptions, and those that depend on the call
	waits   waits
	counts  counts
	refused logline.Recurring // clients whose handshake failed
}

// DialOptions returns the options that the channels of Config.Upstream must have.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStatsHandler(noteHandler{}),
		grpc.WithStaticStreamWindowSize(serverWindow), grpc.WithStaticConnWindowSize(connWindow),
		// The pool's own calls cannot decompress, see RegisterEncodings.
		grpc.WithDefaultCallOptions(accept(nil)),
	}
}

// New makes a proxy. It does not listen yet, see Serve.
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
			return nil, fmt.Errorf("proxy: %s is %d; it must be positive and less than 2 Gi, or 0 for the default", limit.name, *limit.value)
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
		grpc.Creds(guardCredentials{s.cfg.Logger, &s.refused}),
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
		// A client without calls costs a file descriptor. It does not notice that the
		// connection is closed: its next call opens another.
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: maxConnectionIdle}),
		// Clients on this machine may ping often.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	}
}

// Serve serves the clients of l until Shutdown, and then returns nil. It closes l.
func (s *Server) Serve(l *Listener) error {
	if err := s.grpc.Serve(countedListener{l, &s.clients}); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("proxy: serving %s: %w", l.Addr(), err)
	}
	return nil
}

// Reload makes a new pool for all calls from now on. Calls on the old pool continue. If
// the new one cannot be made, the old one stays.
func (s *Server) Reload() error {
	pool, err := s.cfg.Upstream()
	if err != nil {
		return err
	}
	if err := s.upstream.replace(pool); err != nil {
		_ = pool.Close() // it is new and unused
		return err
	}
	return nil
}

// Shutdown stops accepting calls and waits for running ones. When ctx ends, these end
// with Unavailable, and the error says how many there were. Health watches of the proxy
// itself receive NOT_SERVING and end.
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
			err = fmt.Errorf("proxy: shut down while calls were running (%d): %w", n, context.Cause(ctx))
		}
		s.grpc.Stop()
		<-drained
	}
	s.waits.close()
	return errors.Join(err, s.upstream.close()) //nolint:contextcheck // no call is left to wait for
}
