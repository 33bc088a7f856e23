package grpcpooltest

import "context"

// Server is a gRPC server of a test. What goes wrong in it fails the test. Its
// methods may be called concurrently.
type Server struct {
	*Standalone

	tb TB
}

// NewServer starts a server that is stopped when the test ends.
func NewServer(tb TB, opts ...Option) *Server {
	tb.Helper()
	s := &Server{Standalone: NewStandalone(opts...), tb: tb}
	s.Start()
	tb.Cleanup(s.Stop)
	return s
}

// Start starts the server again, at the address that it had.
func (s *Server) Start() {
	s.tb.Helper()
	if err := s.Standalone.Start(context.Background()); err != nil {
		s.tb.Fatalf("%v", err)
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
