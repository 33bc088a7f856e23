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
// INVARIANT: a call that waits leaves the queue exactly once, under subchannel.mu:
// taken out by a dispatch with a stream, by wakeLocked without, or by its own
// cancellation. What was handed over and is not wanted any more is given back.

// waiter is one call that waits.
type waiter struct {
	handed chan *connection // holds one; nil: pick again

	queued     bool // in the queue; guarded by subchannel.mu, as are the links
	next, prev *waiter
}

// waiterPool keeps waiters for their channels. Each subchannel has its own: a
// channel that is made in a bubble of testing/synctest must not leave it.
type waiterPool struct{ pool sync.Pool }

func (p *waiterPool) get() *waiter {
	if w, ok := p.pool.Get().(*waiter); ok {
		return w
	}
	return &waiter{handed: make(chan *connection, 1)}
}

func (p *waiterPool) put(w *waiter) { p.pool.Put(w) }

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

// acquire takes a stream, from the oldest connection that has one, and waits if
// none has. It returns nil and no error if the caller has to pick again, once
// there is a new picker; the error is a gRPC status.
func (s *subchannel) acquire(ctx context.Context) (*connection, error) {
	if s.waiting.Load() == 0 { // nobody is before this call
		if c, exceeded := s.take(); c != nil {
			if exceeded {
				s.grow()
			}
			return c, nil
		}
	}
	priority := hasPriority(ctx)
	if priority {
		if c := s.takeReserved(); c != nil {
			return c, nil
		}
	}
	s.mu.Lock()
	if !s.servingLocked() {
		s.mu.Unlock()
		return nil, nil //nolint:nilnil // see above
	}
	w := s.waiters.get()
	if priority {
		s.queue.pushFront(w)
	} else {
		s.queue.push(w)
	}
	s.waiting.Add(1) // before the next take: see connection.release
	s.stats.waited++
	s.dispatchLocked()
	dials := s.growLocked()
	s.mu.Unlock()
	s.dial(dials)
	return s.wait(ctx, w)
}

// wait returns what w is handed, or ctx's error.
func (s *subchannel) wait(ctx context.Context, w *waiter) (*connection, error) {
	start := time.Now()
	select {
	case c := <-w.handed:
		s.waiters.put(w)
		return c, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	err := status.Error(status.FromContextError(ctx.Err()).Code(), s.explainLocked(ctx, time.Since(start)))
	handed := !w.queued
	if !handed {
		s.queue.remove(w)
		s.waiting.Add(-1)
		s.noteStarvedLocked(time.Since(start), err)
	}
	s.mu.Unlock()
	if handed {
		if c := <-w.handed; c != nil {
			c.release()
		}
	}
	s.waiters.put(w)
	return nil, err
}

// noteStarvedLocked counts a call that waited in vain. At most one a second makes
// an event.
func (s *subchannel) noteStarvedLocked(waited time.Duration, err error) {
	s.stats.starved++
	if now := time.Now(); now.Sub(s.starvedAt) >= time.Second {
		s.starvedAt = now
		s.event(EventStarved, nil, waited, oneLine(err))
	}
}

// explainLocked says what a call waited for in vain.
func (s *subchannel) explainLocked(ctx context.Context, waited time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "scale: %v after waiting %v for a stream to %s: ", ctx.Err(), waited.Round(time.Millisecond), s.addr())
	ready := *s.ready.Load()
	switch {
	case len(ready) == 0:
		b.WriteString("no connection is up")
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

// take takes a stream that is free, from the oldest connection first, so that the
// younger ones fall idle when they are not needed. A connection to a server
// without a limit has a room that it may exceed: when all of that is taken the
// least loaded connection takes the stream, and the subchannel ought to grow.
func (s *subchannel) take() (c *connection, exceeded bool) {
	ready := s.suspects.unsuspected(*s.ready.Load())
	for i, c := range ready {
		if c.take(c.softLimit.Load()) {
			if i > 0 && !c.used.Load() {
				c.used.Store(true)
			}
			return c, false
		}
	}
	var least *connection
	for _, c := range ready {
		if n := c.streams.Load(); n < c.callLimit.Load() && (least == nil || n < least.streams.Load()) {
			least = c
		}
	}
	if least == nil || !least.take(least.callLimit.Load()) {
		return nil, false
	}
	least.used.Store(true)
	return least, true
}

// dispatch hands free streams to the calls that wait.
func (s *subchannel) dispatch() {
	s.mu.Lock()
	s.dispatchLocked()
	s.mu.Unlock()
}

func (s *subchannel) dispatchLocked() {
	s.resumeHealthWatchLocked()
	for s.queue.length > 0 {
		c, _ := s.take()
		if c == nil {
			c = s.lendReservedLocked()
		}
		if c == nil {
			return
		}
		s.handLocked(c)
	}
}

// wakeLocked makes every call that waits pick again.
func (s *subchannel) wakeLocked() {
	for s.queue.length > 0 {
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
