package proxy

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/shared"
)

// lastCode is the highest of gRPC's status codes. Higher ones count as Unknown.
const lastCode = codes.Unauthenticated

// counts are the counters behind Stats.
type counts struct {
	active, refused atomic.Int64
	ended           [lastCode + 1]atomic.Int64 // by status code
}

// Stats are a proxy's counters.
type Stats struct {
	Active  int64            `json:"active"`  // running calls
	Ended   map[string]int64 `json:"ended"`   // calls that have ended, by status code, without codes that have not occurred
	Refused int64            `json:"refused"` // calls in excess of MaxStreams, or without the token
	Clients Clients          `json:"clients"`
	Pool    shared.Stats     `json:"-"`
}

// Clients are connections from clients.
type Clients struct {
	Open    int64 `json:"open"`
	Refused int64 `json:"refused"` // those in excess of MaxClients
}

// Calls returns the number of calls that were accepted.
func (s Stats) Calls() int64 {
	n := s.Active
	for _, ended := range s.Ended {
		n += ended
	}
	return n
}

// Stats returns the counters. It may be called at any time.
func (s *Server) Stats() Stats {
	stats := Stats{
		Active:  s.counts.active.Load(),
		Ended:   make(map[string]int64),
		Refused: s.counts.refused.Load(),
		Clients: Clients{Open: s.clients.open.Load(), Refused: s.clients.refused.Load()},
		Pool:    s.Pool().Stats(),
	}
	for code := range s.counts.ended {
		if n := s.counts.ended[code].Load(); n > 0 {
			stats.Ended[codes.Code(code).String()] = n
		}
	}
	return stats
}

// Pool returns the current pool. Reload replaces it.
func (s *Server) Pool() *shared.Pool { return s.upstream.current.Load() }

// WriteMetrics writes the counters in Prometheus's text format.
func (s *Server) WriteMetrics(w io.Writer) error {
	var text strings.Builder
	text.WriteString("# HELP grpcpool_proxy_calls_total Calls that have ended, by status code.\n" +
		"# TYPE grpcpool_proxy_calls_total counter\n")
	for code := range s.counts.ended {
		fmt.Fprintf(&text, "grpcpool_proxy_calls_total{code=%q} %d\n",
			codes.Code(code), s.counts.ended[code].Load())
	}
	const counter, gauge = "counter", "gauge"
	stats := s.Stats()
	connections, waiting := 0, 0
	for _, sub := range stats.Pool.Current.Subchannels {
		connections += len(sub.Connections)
		waiting += sub.Waiters
	}
	for _, m := range []struct {
		name, kind, help string
		value            int64
	}{
		{"grpcpool_proxy_refused_total", counter, "Calls refused: over the limit, or without a valid token.", stats.Refused},
		{"grpcpool_proxy_clients", gauge, "Connections from clients.", stats.Clients.Open},
		{"grpcpool_proxy_clients_refused_total", counter, "Connections from clients refused: over the limit.", stats.Clients.Refused},
		{"grpcpool_proxy_active", gauge, "Running calls.", stats.Active},
		{"grpcpool_proxy_connections", gauge, "Connections to the server.", int64(connections)},
		{"grpcpool_proxy_waiting", gauge, "Calls waiting for a stream on a connection to the server.", int64(waiting)},
	} {
		fmt.Fprintf(&text, "# HELP %[1]s %[3]s\n# TYPE %[1]s %[2]s\n%[1]s %[4]d\n", m.name, m.kind, m.help, m.value)
	}
	_, err := io.WriteString(w, text.String())
	return err //nolint:wrapcheck // it is the writer's own error
}

// admit counts a call, or returns the error to refuse it with. Undone by release.
func (s *Server) admit() error {
	if n := s.counts.active.Add(1); n > int64(s.cfg.MaxStreams) {
		s.counts.active.Add(-1)
		s.counts.refused.Add(1)
		return status.Errorf(codes.ResourceExhausted,
			"grpcpool proxy: too many concurrent calls (limit %d); try again later, or raise --max-streams", s.cfg.MaxStreams)
	}
	return nil
}

func (s *Server) release(err error) {
	code := status.Code(err)
	if code > lastCode {
		code = codes.Unknown
	}
	s.counts.ended[code].Add(1)
	s.counts.active.Add(-1)
}
