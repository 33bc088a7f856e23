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
// proof is not quite new: whether the connection lives is then known as soon as that of a
// health service that hangs.
func (s *subchannel) takeReserved() *connection {
	var taken *connection
	s.update(func(*effects) {
		ready := *s.ready.Load()
		for _, c := range ready {
			if c.take(c.serverLimit.Load()) {
				taken = c
				break
			}
		}
		for _, c := range ready {
			if taken == nil && c.doubt == doubtQuiet && c.takeForProbe() {
				c.splitWindowLocked()
				taken = c
			}
		}
		if taken != nil && !taken.awaited && taken.now()-time.Duration(taken.aliveAt.Load()) > askBeside {
			taken.askLocked()
		}
	})
	return taken
}

// askBeside is the age of the last proof from which on HTTP/2 is asked beside a call with
// priority.
const askBeside = 250 * time.Millisecond

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
