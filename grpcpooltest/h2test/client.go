package h2test

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

const memoryBuffer = 1 << 16 // bytes of a connection in memory, each way

// WithInMemory has [NewServer] serve without a socket, as a bubble of testing/synctest
// needs it: clients reach the server by its DialOptions only.
func WithInMemory() Option { return func(s *Server) { s.inMemory = true } }

// NewServer starts a server on a free port of 127.0.0.1, or in memory, and closes it
// when the test ends.
func NewServer(tb grpcpooltest.TB, opts ...Option) *Server {
	tb.Helper()
	s := newServer(opts)
	if s.mistake != nil {
		tb.Fatalf("%v", s.mistake)
		return nil
	}
	if s.inMemory {
		s.listener = bufconn.Listen(memoryBuffer)
	} else {
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatalf("h2test: %v", err)
			return nil
		}
		s.listener = l
	}
	s.goroutines.Go(s.accept)
	tb.Cleanup(s.Close)
	return s
}

// Target is what a client dials with the server's DialOptions.
func (s *Server) Target() string {
	if _, ok := s.listener.(*bufconn.Listener); ok {
		return "passthrough:///localhost"
	}
	return "passthrough:///" + s.Addr().String()
}

// DialOptions are what a client needs to reach the server: the way into memory and,
// without TLS, credentials. They end with more, which wins.
func (s *Server) DialOptions(more ...grpc.DialOption) []grpc.DialOption {
	opts := []grpc.DialOption{grpc.WithContextDialer(s.Dial)}
	if s.tls == nil {
		opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	return append(opts, more...)
}

// Dial connects to the server, for grpc.WithContextDialer and [grpcpooltest.NewLink].
// The address does not matter.
func (s *Server) Dial(ctx context.Context, _ string) (net.Conn, error) {
	var conn net.Conn
	var err error
	if l, ok := s.listener.(*bufconn.Listener); ok {
		conn, err = l.DialContext(ctx)
	} else {
		conn, err = new(net.Dialer).DialContext(ctx, s.Addr().Network(), s.Addr().String())
	}
	if err != nil {
		return nil, fmt.Errorf("h2test: dialling the server: %w", err)
	}
	return conn, nil
}
