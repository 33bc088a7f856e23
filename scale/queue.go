package scale

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/status"
)

// A call that finds no stream waits, first in, first out, in the queue of its
// subchannel, on its own context, inside Pick and so on its own goroutine.
//
// INVARIANT: a call that waits leaves the queue exactly once, under subchannel.mu: by
// dispatchLocked with a stream, by wakeLocked without one, or because its context ended.
// If it was handed a stream just then, it gives the stream back.

// waiter is one call that waits.
type waiter struct {
	handed chan *connection // holds one; nil: pick again, or err
	err    error            // what a call that is handed nil fails with unless it waits for ready; set before

	queued     bool // in the queue; guarded by subchannel.mu, as are the links
	next, prev *waiter
}

// waiterPool keeps waiters, to reuse their Go channels. Each subchannel has a pool of its
// own, because a Go channel must not leave the testing/synctest bubble that it was made in.
type waiterPool struct{ pool sync.Pool }

func (p *waiterPool) get() *waiter {
	if w, ok := p.pool.Get().(*waiter); ok {
		return w
	}
	return &waiter{handed: make(chan *connection, 1)}
}

func (p *waiterPool) put(w *waiter) {
	w.err = nil
	p.pool.Put(w)
}

// queue is a list of waiters. Its zero value is an empty one.
type queue struct {
	first, last *waiter
	length      int
}

func (q *queue) push(w *waiter) {
	w.queued, w.prev, w.next = true, q.last, nil
	if q.last == nil {
		q.first = w
	} else {
		q.last.next = w
	}
	q.last = w
	q.length++
}

func (q *queue) pushFront(w *waiter) {
	w.queued, w.prev, w.next = true, nil, q.first
	if q.first == nil {
		q.last = w
	} else {
		q.first.prev = w
	}
	q.first = w
	q.length++
}

func (q *queue) remove(w *waiter) {
	if w.prev == nil {
		q.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.queued, w.next, w.prev = false, nil, nil
	q.length--
}

// wait returns what w is handed, or why it gets nothing.
func (s *subchannel) wait(ctx context.Context, w *waiter) (*connection, error) {
	start := time.Now()
	select {
	case c := <-w.handed:
		err := w.err
		s.waiters.put(w)
		return c, err
	case <-ctx.Done():
	}
	var err error
	s.update(func(e *effects) {
		err = status.Error(status.FromContextError(ctx.Err()).Code(), s.explainLocked(ctx, time.Since(start)))
		if !w.queued { // it was handed something just now
			if c := <-w.handed; c != nil { // does not block: handLocked has sent it
				c.releaseLocked(e)
			}
			return
		}
		s.queue.remove(w)
		s.waiting.Add(-1)
		s.noteStarvedLocked(time.Since(start), err)
	})
	s.waiters.put(w)
	return nil, err
}

// noteStarvedLocked counts a call that ended before it had a stream. It makes an event at
// most once a second.
func (s *subchannel) noteStarvedLocked(waited time.Duration, err error) {
	s.stats.starved++
	if now := time.Now(); now.Sub(s.starvedAt) >= time.Second {
		s.starvedAt = now
		s.event(EventStarved, nil, waited, oneLine(err))
	}
}

// explainLocked says why a call that waited got no stream.
func (s *subchannel) explainLocked(ctx context.Context, waited time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "scale: %v after waiting %v for a stream to %s: ", ctx.Err(), waited.Round(time.Millisecond), s.addr())
	ready := *s.ready.Load()
	switch {
	case len(ready) == 0:
		b.WriteString("no connection is up")
	case s.anySilentLocked():
		b.WriteString("the connection does not answer")
	case s.awaitedLocked():
		b.WriteString("its connection was unused for a while, and has not shown yet that it is alive")
	case s.eachLocked() == 0:
		b.WriteString("the server allows none (limit 0)")
	default:
		fmt.Fprintf(&b, "all streams are taken (limit %d per connection)", s.eachLocked())
	}
	fmt.Fprintf(&b, "; %d of at most %d connections, %d calls waiting", len(ready), s.policy.settings.Load().maxConnections, s.queue.length)
	if s.lastErr != nil {
		fmt.Fprintf(&b, "; last connection error: %v", s.lastErr)
	}
	return b.String()
}

// eachLocked is how many streams one of the connections that are READY can have.
func (s *subchannel) eachLocked() (each int64) {
	for _, c := range *s.ready.Load() {
		each = max(each, c.softLimit.Load())
	}
	return each
}

// dispatchLocked hands free streams to the calls that wait.
func (s *subchannel) dispatchLocked(e *effects) {
	s.resumeHealthWatchLocked(e)
	for s.queue.length > 0 {
		c, _ := s.takeFree()
		if c == nil {
			c = s.lendReservedLocked()
		}
		if c == nil {
			return
		}
		s.handLocked(c)
	}
}

// serveLocked hands free streams to the calls that wait, and dials more connections for
// those that get none.
func (s *subchannel) serveLocked(e *effects) {
	s.dispatchLocked(e)
	s.growLocked(e)
}

// wakeLocked makes every call that waits pick again.
func (s *subchannel) wakeLocked() {
	for s.queue.length > 0 {
		s.handLocked(nil)
	}
}

// failWaitingLocked ends every call that waits with err, which is no status: gRPC ends a
// call with it as Unavailable, unless it waits for ready and picks again.
func (s *subchannel) failWaitingLocked(err error) {
	for s.queue.length > 0 {
		s.queue.first.err = err
		s.handLocked(nil)
	}
}

// handLocked hands c to the first call that waits.
func (s *subchannel) handLocked(c *connection) {
	w := s.queue.first
	s.queue.remove(w)
	s.waiting.Add(-1)
	w.handed <- c // has room: w was queued, so nothing was handed to it
}
