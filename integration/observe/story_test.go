package observe_test

import (
	"maps"
	"strings"
	"testing"
)

// The story that the exporters' tests tell: callers fill four connections, some
// more time out, the server goes away and comes back, the pool is closed.
const (
	storyCalls       = 4 * limit // all held at the same time
	storyTimeouts    = 5         // callers that found no stream
	storyConnections = 4         // that the calls make necessary, and that the server ends
)

// begin tells the story up to its middle, where all connections are full, and
// returns what the metrics have to show there.
func (s *stage) begin() (want map[string]int64) {
	s.t.Helper()
	s.enter(storyCalls, storyCalls)
	s.timeOut(storyTimeouts)
	eventually(s.t, "four connections", func() bool { return s.connections() == storyConnections })
	return map[string]int64{
		"grpcpool.connection.count{used}":       storyConnections,
		"grpcpool.connection.count{idle}":       0,
		"grpcpool.connection.count{connecting}": 0,
		"grpcpool.connection.max":               storyConnections,
		"grpcpool.connection.pending_requests":  0,
		"grpcpool.connection.create_time":       storyConnections,
		"grpcpool.connection.timeouts":          storyTimeouts,
		"grpcpool.connection.use_time":          storyTimeouts,
		"grpcpool.lease.count":                  storyCalls,
		"grpcpool.stream.active":                storyCalls,
		"grpcpool.stream.limit":                 storyConnections * limit,
	}
}

// end tells the rest, and returns the sums that the metrics have to show.
func (s *stage) end() (want map[string]int64) {
	s.t.Helper()
	s.leave()
	s.Stop()
	eventually(s.t, "no connection", func() bool { return s.connections() == 0 })
	s.Start()
	eventually(s.t, "a connection after the server's return", func() bool {
		l, err := s.pool.Get(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		defer l.Return()
		s.borrowed++
		return s.connections() > 0
	})
	if err := s.pool.Close(); err != nil {
		s.t.Error(err)
	}
	stats := s.pool.Stats()
	return map[string]int64{
		"grpcpool.call.count{OK}":                storyCalls,
		"grpcpool.call.count{DEADLINE_EXCEEDED}": storyTimeouts,
		"grpcpool.call.count{UNAVAILABLE}":       0,

		"grpcpool.connection.create_time":      int64(s.Accepted()),
		"grpcpool.connection.closed{lost}":     storyConnections,
		"grpcpool.connection.closed{shutdown}": 1,
		"grpcpool.connection.timeouts":         storyTimeouts,
		"grpcpool.connection.test{ok}":         int64(stats.Tests - stats.TestsFailed),
		"grpcpool.connection.test{failed}":     int64(stats.TestsFailed),
		"grpcpool.connection.use_time":         storyCalls + storyTimeouts + s.borrowed,
	}
}

// wantFigures fails unless what a collector or Prometheus has got says all that is
// wanted. renamed is what became of a name on the way.
func wantFigures(t *testing.T, got, want map[string]int64, renamed func(string) string) {
	t.Helper()
	failed := false
	for name, n := range want {
		if got[renamed(name)] != n {
			t.Errorf("%s is %d, want %d", renamed(name), got[renamed(name)], n)
			failed = true
		}
	}
	if failed {
		t.Logf("all figures: %v", got)
	}
}

// wantBalance fails unless as many connections were closed as were opened.
func wantBalance(t *testing.T, got map[string]int64, renamed func(string) string) {
	t.Helper()
	opened, closed := got[renamed("grpcpool.connection.create_time")], int64(0)
	for name := range maps.Keys(got) {
		if strings.HasPrefix(name, renamed("grpcpool.connection.closed")) {
			closed += got[name]
		}
	}
	if opened != closed {
		t.Errorf("%d connections opened, %d closed: %v", opened, closed, got)
	}
}
