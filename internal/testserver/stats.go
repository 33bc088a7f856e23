package testserver

import (
	"context"

	"google.golang.org/grpc/stats"
)

var _ stats.Handler = (*meter)(nil)

func (m *meter) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (m *meter) HandleRPC(_ context.Context, rs stats.RPCStats) {
	switch rs := rs.(type) {
	case *stats.InPayload:
		m.addMessage(rs.Length, rs.WireLength)
	case *stats.OutPayload:
		m.addMessage(rs.Length, rs.WireLength)
	}
}

func (m *meter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (m *meter) HandleConn(_ context.Context, cs stats.ConnStats) {
	switch cs.(type) {
	case *stats.ConnBegin:
		m.addConnection(1, 1)
	case *stats.ConnEnd:
		m.addConnection(0, -1)
	}
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
