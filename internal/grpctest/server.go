// Package grpctest has gRPC servers for tests: on loopback or in memory, plain
// or mutual TLS, that can be stopped and started again at the same address.
package grpctest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/test/bufconn"
)

// Config says what a Server is like. The zero Config is plaintext on loopback
// with a health service that says SERVING.
type Config struct {
	InMemory bool        // reached through Dial only; what testing/synctest needs
	TLS      *tls.Config // nil: plaintext
	NoHealth bool        // do not register the health service
	Options  []grpc.ServerOption

	// EmptyCall, if set, answers the RPC of that name.
	EmptyCall func(context.Context) error
}

// Server is a gRPC server with the services grpc.testing.TestService and
// grpc.health.v1.Health. It is stopped when its test ends.
type Server struct {
	Health *health.Server

	tb       testing.TB
	cfg      Config
	addr     string
	accepted atomic.Int64

	mu   sync.Mutex // guards what follows
	lis  net.Listener
	srv  *grpc.Server
	done chan struct{} // closed when Serve has returned
}

// Start starts a server.
func Start(tb testing.TB, cfg Config) *Server {
	tb.Helper()
	s := &Server{tb: tb, cfg: cfg, addr: "127.0.0.1:0"}
	s.Start()
	tb.Cleanup(s.Stop)
	return s
}

// Start starts the server again, at the address it had.
func (s *Server) Start() {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	lis, err := s.listen()
	if err != nil {
		s.tb.Fatalf("listening at %s: %v", s.addr, err)
	}
	opts := s.cfg.Options
	if s.cfg.TLS != nil {
		opts = append(slices.Clip(opts), grpc.Creds(credentials.NewTLS(s.cfg.TLS)))
	}
	s.lis, s.srv, s.done = lis, grpc.NewServer(opts...), make(chan struct{})
	s.Health = health.NewServer()
	if !s.cfg.NoHealth {
		healthpb.RegisterHealthServer(s.srv, s.Health)
	}
	testpb.RegisterTestServiceServer(s.srv, &service{emptyCall: s.cfg.EmptyCall})
	go func(srv *grpc.Server, done chan struct{}) {
		defer close(done)
		if err := srv.Serve(countingListener{lis, &s.accepted}); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			s.tb.Errorf("serving at %s: %v", s.addr, err)
		}
	}(s.srv, s.done)
}

func (s *Server) listen() (net.Listener, error) {
	if s.cfg.InMemory {
		return bufconn.Listen(1 << 18), nil
	}
	lis, err := new(net.ListenConfig).Listen(context.Background(), "tcp", s.addr)
	if err == nil {
		s.addr = lis.Addr().String()
	}
	return lis, err
}

// Stop closes the listener and every connection, and waits for the handlers.
func (s *Server) Stop() { s.stop((*grpc.Server).Stop) }

// GracefulStop tells the clients to go and waits until they have.
func (s *Server) GracefulStop() { s.stop((*grpc.Server).GracefulStop) }

func (s *Server) stop(how func(*grpc.Server)) {
	s.mu.Lock()
	srv, done := s.srv, s.done
	s.lis, s.srv = nil, nil
	s.mu.Unlock()
	if srv == nil {
		return
	}
	how(srv)
	<-done
}

// Addr is the address that the server listens at, "host:port".
func (s *Server) Addr() string { return s.addr }

// Target is what to dial: the address, or, in memory, a name for which Dial has
// to be the context dialer.
func (s *Server) Target() string {
	if s.cfg.InMemory {
		return "passthrough:///localhost"
	}
	return s.addr
}

// Accepted is how many connections the server has accepted since it was made.
func (s *Server) Accepted() int { return int(s.accepted.Load()) }

// Dial connects to an in-memory server, for grpc.WithContextDialer. It is refused
// while the server is stopped.
func (s *Server) Dial(ctx context.Context, _ string) (net.Conn, error) {
	s.mu.Lock()
	lis := s.lis
	s.mu.Unlock()
	if lis, ok := lis.(*bufconn.Listener); ok {
		conn, err := lis.DialContext(ctx)
		if err != nil {
			return nil, fmt.Errorf("dialling in memory: %w", err)
		}
		return conn, nil
	}
	return nil, errors.New("connection refused (in memory)")
}

type countingListener struct {
	net.Listener

	n *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return conn, err //nolint:wrapcheck // a listener's errors are compared by grpc-go
}

type service struct {
	testpb.UnimplementedTestServiceServer

	emptyCall func(context.Context) error
}

func (s *service) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	if s.emptyCall != nil {
		if err := s.emptyCall(ctx); err != nil {
			return nil, err
		}
	}
	return &testpb.Empty{}, nil
}

// FullDuplexCall answers each message with an empty one until the client is done.
func (*service) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	for {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
}

// StreamingInputCall counts the bytes of the messages that the client sends.
func (*service) StreamingInputCall(stream testpb.TestService_StreamingInputCallServer) error {
	var n int32
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: n})
		}
		if err != nil {
			return err
		}
		n += int32(len(in.GetPayload().GetBody())) //nolint:gosec // tests send little
	}
}
