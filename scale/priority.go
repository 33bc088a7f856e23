package scale

import (
	"context"
	"time"
)

type priorityKey struct{}

// ContextWithPriority returns a copy of ctx whose calls on this package's channels go
// before others: when all other streams are taken they use the stream that is kept free
// for probes, and when that is taken too they wait at the front of the queue. Use it for
// health checks, which would otherwise wait behind a busy server's calls and time out. A
// nil ctx counts as context.Background().
func ContextWithPriority(ctx context.Context) context.Context {
	if ctx == nil {
		ctx = context.Background()
	}
	return context.WithValue(ctx, priorityKey{}, true)
}

func hasPriority(ctx context.Context) bool {
	return ctx.Value(priorityKey{}) != nil
}

// takeReserved takes a stream, the one that is kept free for probes included. It takes one
// on a quiet connection too, which it leaves quiet: what is answered proves as much as a
// probe, and is no more use than a probe. The server's HTTP/2 is asked beside it, if the last
// proof is old: a connection that has died is found out while the call waits for its answer.
func (s *subchannel) takeReserved() *connection {
	for _, c := range *s.ready.Load() {
		if c.take(c.serverLimit.Load()) {
			return c
		}
	}
	var taken *connection
	s.update(func(*effects) {
		for _, c := range *s.ready.Load() {
			if c.doubt == doubtQuiet && c.takeForProbe() {
				c.splitWindowLocked()
				if !c.awaited && !c.provedLatelyLocked() {
					c.askLocked()
				}
				taken = c
				return
			}
		}
	})
	return taken
}

// lendReservedLocked lets a waiting call use a stream that is kept free for probes, if
// no further connection may be opened and the handshake is so recent that the
// connection needs no probe yet. So a burst of calls need not wait in two rounds. When
// such a call ends, its stream is kept free again.
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
