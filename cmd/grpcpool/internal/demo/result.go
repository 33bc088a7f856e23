package demo

import (
	"strconv"
	"time"
)

// Milliseconds is a duration that JSON shows as a number of milliseconds.
type Milliseconds time.Duration

// MarshalJSON writes milliseconds with three decimals.
func (m Milliseconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(m)/float64(time.Millisecond), 'f', 3, 64), nil
}

// Result is what a demo measured.
type Result struct {
	Server      string    `json:"server"` // its address
	Load        Load      `json:"load"`
	Trace       Trace     `json:"trace"`
	Outage      Outage    `json:"outage"`
	Idle        Idle      `json:"idle"`
	Shutdown    Shutdown  `json:"shutdown"`
	Connections int       `json:"connections"` // opened in total, as counted by the server
	Promises    []Promise `json:"promises"`
	Kept        bool      `json:"kept"` // all promises
}

// Load is the phase of many callers.
type Load struct {
	Callers        int          `json:"callers"`
	Took           Milliseconds `json:"took_ms"`
	Calls          uint64       `json:"calls"`  // answered
	Failed         uint64       `json:"failed"` // not counted in Calls
	CallsPerSecond float64      `json:"calls_per_second"`
	P50            Milliseconds `json:"p50_ms"`
	P99            Milliseconds `json:"p99_ms"`
	Max            Milliseconds `json:"max_ms"`
	Connections    int          `json:"connections"` // opened so far, as counted by the server
	Snappy         Saving       `json:"snappy"`
}

// Saving is what compression saved in both directions, as measured at the server.
type Saving struct {
	MessageBytes uint64  `json:"message_bytes"` // uncompressed
	WireBytes    uint64  `json:"wire_bytes"`    // as sent, including gRPC's five bytes per message
	SavedBytes   int64   `json:"saved_bytes"`   // negative if compression does not pay
	SavedShare   float64 `json:"saved_share"`   // of MessageBytes
}

func newSaving(messages, wire uint64) Saving {
	s := Saving{MessageBytes: messages, WireBytes: wire}
	s.SavedBytes = int64(messages) - int64(wire) //nolint:gosec // counts of bytes are far below 2^63
	if messages > 0 {
		s.SavedShare = float64(s.SavedBytes) / float64(messages)
	}
	return s
}

// Trace is the trace of the first call.
type Trace struct {
	ID          string `json:"id"`
	SeenByBoth  bool   `json:"seen_by_client_and_server"`
	ClientSpans int    `json:"client_spans"`
	ServerSpans int    `json:"server_spans"`
	Spans       []Span `json:"spans"` // parents before their children
}

// Span is one span of a trace.
type Span struct {
	Name   string       `json:"name"`
	Side   string       `json:"side"` // "client" or "server"
	ID     string       `json:"id"`
	Parent string       `json:"parent,omitempty"` // its ID
	Took   Milliseconds `json:"took_ms"`
	Depth  int          `json:"-"` // how many of the trace's spans are above it
}

// Outage is the phase in which the server stops and restarts.
type Outage struct {
	Away                Milliseconds  `json:"away_ms"`
	RetryPause          Milliseconds  `json:"retry_pause_ms"`     // of a caller after a failed call
	CallsFailed         uint64        `json:"calls_failed"`       // because of the outage
	FirstGoodCall       *Milliseconds `json:"first_good_call_ms"` // after the server's restart; null: there was none
	Connections         int           `json:"connections"`        // opened since, as counted by the server
	FailedWhileUp       uint64        `json:"calls_failed_while_up"`
	FirstFailureWhileUp string        `json:"first_failure_while_up,omitempty"`
}

// Idle is the phase without calls.
type Idle struct {
	Timeout     Milliseconds  `json:"timeout_ms"`
	ClosedAfter *Milliseconds `json:"closed_after_ms"` // after the last call, as seen by the server; null: it was not closed
	NextCall    Milliseconds  `json:"next_call_ms"`    // how long the next call took, including the dial
}

// Shutdown is the phase of the pool's shutdown.
type Shutdown struct {
	Took            Milliseconds `json:"took_ms"`
	LeasesLeft      int          `json:"leases_left"`
	ChannelsLeft    int          `json:"channels_left"`
	ConnectionsLeft int          `json:"connections_left"` // as seen by the server
	GoroutinesLeft  int          `json:"goroutines_left"`  // in excess of those before the demo
}
