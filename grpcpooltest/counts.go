package grpcpooltest

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/grpc/stats"
)

// Counts is what a server has seen since it was made.
type Counts struct {
	Opened int // connections whose handshake succeeded
	Open   int // of those, not closed yet

	Calls     int // begun
	MostCalls int // the most calls that one connection had at a time

	MessageBytes uint64 // of messages both ways, as the programs see them
	WireBytes    uint64 // of the same messages as sent, compressed, with gRPC's five bytes before each
}

// meter is a stats.Handler that counts.
type meter struct {
	mu      sync.Mutex // guards what follows
	seen    Counts
	changed chan struct{} // closed and replaced when seen.Open changes
}

var _ stats.Handler = (*meter)(nil)

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
			return fmt.Errorf("grpcpooltest: waiting for %d open connections, there are %d: %w", n, open, context.Cause(ctx))
		}
	}
}

// connCalls is how many calls a connection has. meter.mu guards it.
type connCalls struct{ n int }

type connKey struct{}

func (*meter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, connKey{}, new(connCalls))
}

func (*meter) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (m *meter) HandleRPC(ctx context.Context, rs stats.RPCStats) {
	switch rs := rs.(type) {
	case *stats.Begin:
		m.addCall(ctx, 1)
	case *stats.End:
		m.addCall(ctx, -1)
	case *stats.InPayload:
		m.addMessage(rs.Length, rs.WireLength)
	case *stats.OutPayload:
		m.addMessage(rs.Length, rs.WireLength)
	}
}

func (m *meter) HandleConn(_ context.Context, cs stats.ConnStats) {
	switch cs.(type) {
	case *stats.ConnBegin:
		m.addConnection(1, 1)
	case *stats.ConnEnd:
		m.addConnection(0, -1)
	}
}

func (m *meter) addCall(ctx context.Context, n int) {
	conn, ok := ctx.Value(connKey{}).(*connCalls)
	if !ok {
		conn = new(connCalls)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen.Calls += max(n, 0)
	conn.n += n
	m.seen.MostCalls = max(m.seen.MostCalls, conn.n)
}

func (m *meter) addMessage(length, wire int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen.MessageBytes += uint64(length) //nolint:gosec // a length is not negative
	m.seen.WireBytes += uint64(wire)      //nolint:gosec // a length is not negative
}

func (m *meter) addConnection(opened, open int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen.Opened += opened
	m.seen.Open += open
	close(m.changed)
	m.changed = make(chan struct{})
}
