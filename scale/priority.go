package scale

import (
	"context"
	"time"
)

type priorityKey struct{}

// ContextWithPriority returns a context whose calls, on channels of this package, use the
// stream that is kept free for probes when all others are taken, and otherwise are the
// first of those that wait. It is for health checks, which would find a busy
// server dead otherwise.
func ContextWithPriority(ctx context.Context) context.Context {
	return context.WithValue(ctx, priorityKey{}, true)
}

func hasPriority(ctx context.Context) bool {
	return ctx.Value(priorityKey{}) != nil
}

// takeReserved takes a stream of any that the server allows.
func (s *subchannel) takeReserved() *connection {
	for _, c := range *s.ready.Load() {
		if c.take(c.serverLimit.Load()) {
			return c
		}
	}
	return nil
}

// lendReservedLocked lends calls that wait the streams that are kept free for
// probes: while no further connection may be opened, on connections whose
// handshake is proof enough for now. It lets a burst through in one go; as the
// calls end, the streams are kept free again.
func (s *subchannel) lendReservedLocked() *connection {
	set, ready := s.policy.settings.Load(), *s.ready.Load()
	if len(ready) < max(set.maxConnections, 2) || set.maxStreams > 0 {
		return nil
	}
	for _, c := range ready {
		if time.Since(c.readyAt) < set.probeInterval && c.take(c.serverLimit.Load()) {
			return c
		}
	}
	return nil
}
