package grpcpooltest

import (
	"context"
	"errors"
)

// Server is a gRPC server of a test. What goes wrong in Start, Stop and GracefulStop
// fails the test; the other methods are those of its [Standalone], such as Target,
// DialOptions and Counts. Its methods may be called concurrently, from any goroutine.
type Server struct {
	*Standalone

	tb TB
}

// NewServer starts a server that is stopped when the test ends. A mistake in the options
// ends the test.
func NewServer(tb TB, opts ...Option) *Server {
	tb.Helper()
	s := &Server{Standalone: NewStandalone(opts...), tb: tb}
	tb.Cleanup(func() { s.report(s.end()) })
	if err := s.Standalone.Start(context.Background()); err != nil {
		tb.Fatalf("%v", err)
	}
	return s
}

// Start starts the server again, at the address that it had. After the test has ended
// it does nothing, so a timer of the test may call it.
func (s *Server) Start() {
	s.tb.Helper()
	if err := s.Standalone.Start(context.Background()); !errors.Is(err, errEnded) {
		s.report(err) // not Fatalf, which only the test's own goroutine may call
	}
}

// Stop closes the listener and every connection, and waits for the handlers. Calls
// that are under way fail with Unavailable. It does nothing if the server is stopped.
func (s *Server) Stop() { s.report(s.Standalone.Stop()) }

// GracefulStop closes the listener, tells the clients to go and waits until their
// calls have ended.
func (s *Server) GracefulStop() { s.report(s.Standalone.GracefulStop()) }

func (s *Server) report(err error) {
	s.tb.Helper()
	if err != nil {
		s.tb.Errorf("%v", err)
	}
}
