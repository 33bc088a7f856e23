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

// lastCode is the highest of gRPC's own status codes. Others count as Unknown.
const lastCode = codes.Unauthenticated

// counts are what Stats shows.
type counts struct {
	active, refused atomic.Int64
	ended           [lastCode + 1]atomic.Int64 // by status code
}

// Stats is what a proxy has done so far.
type Stats struct {
	Active  int64            `json:"active"`  // calls under way
	Ended   map[string]int64 `json:"ended"`   // calls that have ended, by status code; codes that none ended with are left out
	Refused int64            `json:"refused"` // calls beyond MaxStreams, or without the token
	Clients Clients          `json:"clients"`
	Pool    shared.Stats     `json:"-"`
}

// Clients are connections from clients.
type Clients struct {
	Open    int64 `json:"open"`
	Refused int64 `json:"refused"` // those beyond MaxClients
}

// Calls is how many calls were taken.
func (s Stats) Calls() int64 {
	n := s.Active
	for _, ended := range s.Ended {
		n += ended
	}
	return n
}

// Stats may be called at any time.
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

// Pool is the pool that calls go to. After a Reload it is another.
func (s *Server) Pool() *shared.Pool { return s.upstream.current.Load() }

// WriteMetrics writes the counts in Prometheus's text format.
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
		{"grpcpool_proxy_refused_total", counter, "Calls beyond the limit, or without the token.", stats.Refused},
		{"grpcpool_proxy_clients", gauge, "Connections from clients.", stats.Clients.Open},
		{"grpcpool_proxy_clients_refused_total", counter, "Connections from clients beyond the limit.", stats.Clients.Refused},
		{"grpcpool_proxy_active", gauge, "Calls under way.", stats.Active},
		{"grpcpool_proxy_connections", gauge, "Connections to the server.", int64(connections)},
		{"grpcpool_proxy_waiting", gauge, "Calls that wait for a stream on one of them.", int64(waiting)},
	} {
		fmt.Fprintf(&text, "# HELP %[1]s %[3]s\n# TYPE %[1]s %[2]s\n%[1]s %[4]d\n", m.name, m.kind, m.help, m.value)
	}
	_, err := io.WriteString(w, text.String())
	return err //nolint:wrapcheck // it is the writer's
}

// admit counts a call in, or says why not. Undone by release.
func (s *Server) admit() error {
	if n := s.counts.active.Add(1); n > int64(s.cfg.MaxStreams) {
		s.counts.active.Add(-1)
		s.counts.refused.Add(1)
		return status.Errorf(codes.ResourceExhausted,
			"grpcpool proxy: %d calls are under way, which is all that it takes at a time", s.cfg.MaxStreams)
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
