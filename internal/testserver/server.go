// Package testserver is a real gRPC server for tests and for the demo: it echoes
// payloads (grpc.testing.BenchmarkService), reports its health, counts what it
// sees, and can be stopped and started again on the same address.
package testserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// loopback asks for any free port.
const loopback = "127.0.0.1:0"

// Server is a gRPC server on loopback. Its methods may be called concurrently,
// save that Listen, Serve and Stop must come in turn.
type Server struct {
	opts  []grpc.ServerOption
	meter *meter

	listener net.Listener
	address  string       // once known: where Listen listens again
	grpc     *grpc.Server // nil while it does not serve
	served   chan error   // what Serve ended with
}

// New makes a server that has not begun to listen. The options must hold its
// credentials.
func New(opts ...grpc.ServerOption) *Server {
	m := newMeter()
	return &Server{
		opts:    append([]grpc.ServerOption{grpc.StatsHandler(m), grpc.WaitForHandlers(true)}, opts...),
		meter:   m,
		address: loopback,
	}
}

// Start is Listen and Serve.
func (s *Server) Start(ctx context.Context) error {
	if err := s.Listen(ctx); err != nil {
		return err
	}
	s.Serve()
	return nil
}

// Listen binds a free port of the loopback address, the same each time. Clients
// may connect from here on and are served after Serve.
func (s *Server) Listen(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("testserver: %w", err)
	}
	s.listener, s.address = l, l.Addr().String()
	return nil
}

// Serve begins to serve. Undone by Stop.
func (s *Server) Serve() {
	server, listener, served := grpc.NewServer(s.opts...), s.listener, make(chan error, 1)
	testpb.RegisterBenchmarkServiceServer(server, echo{})
	healthpb.RegisterHealthServer(server, health.NewServer())
	s.grpc, s.served = server, served
	go func() { served <- server.Serve(listener) }() // Stop may come before it has begun
}

// Stop closes the listener and all connections, and waits for the handlers. RPCs
// under way fail with Unavailable. Stopping a server that does not serve does
// nothing.
func (s *Server) Stop() error {
	if s.grpc == nil {
		return nil
	}
	s.grpc.Stop()
	s.grpc = nil
	if err := <-s.served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("testserver: serving %s: %w", s.address, err)
	}
	return nil
}

// Address is the "host:port" that Listen has bound.
func (s *Server) Address() string { return s.address }

// Counts is what the server has seen since New.
func (s *Server) Counts() Counts { return s.meter.counts() }

// WaitOpen waits until n connections are open.
func (s *Server) WaitOpen(ctx context.Context, n int) error { return s.meter.waitOpen(ctx, n) }

// echo answers a unary call with its payload.
type echo struct {
	testpb.UnimplementedBenchmarkServiceServer
}

func (echo) UnaryCall(_ context.Context, request *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Payload: request.GetPayload()}, nil
}

// Counts is what a server has seen.
type Counts struct {
	Opened int // connections whose handshake succeeded
	Open   int // of those, not closed yet

	MessageBytes uint64 // of messages both ways, as the programs see them
	WireBytes    uint64 // of the same messages as sent, compressed, with gRPC's five bytes before each
}

// meter is a stats.Handler that counts.
type meter struct {
	mu      sync.Mutex // guards what follows
	seen    Counts
	changed chan struct{} // closed and replaced when seen.Open changes
}

func newMeter() *meter { return &meter{changed: make(chan struct{})} }

func (m *meter) counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen
}

func (m *meter) waitOpen(ctx context.Context, n int) error {
	for {
		m.mu.Lock()
		open, changed := m.seen.Open, m.changed
		m.mu.Unlock()
		if open == n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("testserver: waiting for %d open connections, there are %d: %w", n, open, context.Cause(ctx))
		}
	}
}
