package scale

import (
	"context"
	"errors"
	"sync/atomic"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// picker has the child's picker choose a subchannel, and takes a stream on one of its
// connections. gRPC may use it long after the next one has been published, so it holds no
// list of connections; the subchannel does.
type picker struct {
	policy *policy
	child  balancer.Picker

	parked atomic.Int64 // calls for which the child's picker had no subchannel
}

// Pick implements balancer.Picker. It allocates nothing while a stream is free
// and the child's picker allocates nothing.
func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	for picks := 1; ; picks++ {
		result, err := p.pick(info, picks < mostPicks)
		if err != errElsewhere { //nolint:errorlint // which is never wrapped
			return result, err
		}
	}
}

// pick is one pick of the child. It returns errElsewhere if the call may leave the
// subchannel, all connections of which are silent.
func (p *picker) pick(info balancer.PickInfo, mayLeave bool) (balancer.PickResult, error) {
	result, err := p.child.Pick(info)
	if err != nil {
		if errors.Is(err, balancer.ErrNoSubConnAvailable) {
			p.parked.Add(1)
			p.policy.noteParkedCall()
		} else {
			p.policy.noteDemand()
		}
		return result, err
	}
	s, ok := result.SubConn.(*subchannel)
	if !ok {
		return result, nil // not made through this policy
	}
	c, err := s.acquire(info.Ctx, mayLeave)
	if c == nil {
		if result.Done != nil {
			told := err
			if err == errElsewhere { //nolint:errorlint // see Pick
				told = nil
			}
			result.Done(balancer.DoneInfo{Err: told})
		}
		if err == nil {
			err = balancer.ErrNoSubConnAvailable
		}
		return balancer.PickResult{}, err
	}
	result.SubConn = c.sc
	result.Done = c.doneAfter(result.Done)
	return result, nil
}

// doneAfter is the Done of a call on c whose child policy wants to be told first.
func (c *connection) doneAfter(child func(balancer.DoneInfo)) func(balancer.DoneInfo) {
	if child == nil {
		return c.window.Load().done
	}
	done := c.window.Load().done
	return func(info balancer.DoneInfo) {
		child(info)
		done(info)
	}
}

// onDone is called by gRPC when a call has ended, or when it could not begin because the
// picked connection was gone. The calls that were picked in one window share it.
func (w *probeWindow) onDone(info balancer.DoneInfo) {
	c := w.conn
	if info.BytesReceived && !w.answered.Load() {
		w.answered.Store(true)
		c.hasAnswered.Store(true)
		c.noteAlive(w)
	}
	if c.drainedAt.Load() != 0 && !info.BytesReceived && status.Code(info.Err) == codes.Unavailable {
		c.orphaned()
	}
	c.release()
}

// acquire takes a stream, from the oldest connection that has one, and waits if none has.
// It returns nil and no error if the caller has to pick again when there is a new picker.
// An error is a gRPC status, or gRPC makes one of it for a call that does not wait for ready.
// It is errElsewhere if the call may leave and every connection is silent.
func (s *subchannel) acquire(ctx context.Context, mayLeave bool) (*connection, error) {
	if s.waiting.Load() == 0 { // otherwise this call has to wait for its turn
		if c, exceeded := s.takeFree(); c != nil {
			if exceeded {
				s.growBeyondSoft()
			}
			return c, nil
		}
	}
	if mayLeave && s.silent() {
		return nil, errElsewhere
	}
	priority := hasPriority(ctx)
	if priority {
		if c := s.takeReserved(); c != nil {
			return c, nil
		}
	}
	c, w := s.enqueue(priority)
	if w != nil {
		return s.wait(ctx, w)
	}
	return c, nil
}

// enqueue puts a call into the queue, unless only quiet connections were in its way and it
// gets a stream at once. It returns neither if there is no connection to wait for.
func (s *subchannel) enqueue(priority bool) (c *connection, w *waiter) {
	s.update(func(e *effects) {
		if !s.servingLocked() {
			return
		}
		if s.calledLocked() && s.queue.length == 0 {
			if c, _ = s.takeFree(); c != nil {
				return
			}
		}
		w = s.waiters.get()
		if priority {
			s.queue.pushFront(w)
		} else {
			s.queue.push(w)
		}
		s.waiting.Add(1) // before the next take: see connection.release
		s.stats.waited++
		if s.oldest() == nil { // it has picked while the last connection ended, and will not pick again
			s.wanted = true
			s.superviseAnewLocked()
		}
		s.serveLocked(e)
	})
	return c, w
}

// takeFree takes a stream that is free, from the oldest connection first, so that the
// younger ones fall idle when they are not needed. A connection to a server
// without a limit has a soft limit, which calls may exceed: when all connections have
// reached theirs the least loaded one takes the stream, and the subchannel should grow.
func (s *subchannel) takeFree() (c *connection, exceeded bool) {
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

// take takes a stream unless the connection has atMost of them or is out.
func (c *connection) take(atMost int64) bool {
	for {
		n := c.streams.Load()
		if n >= atMost {
			return false
		}
		if c.streams.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release gives a stream back, to the first call that waits for one. It runs once
// for every stream taken.
//
// The count comes down before waiting is read, and a call raises waiting before
// it tries to take: one of the two sees the other.
func (c *connection) release() {
	c.streams.Add(-1)
	if c.sub.waiting.Load() > 0 {
		c.sub.update(c.sub.dispatchLocked)
	}
}

// releaseLocked is release with subchannel.mu held.
func (c *connection) releaseLocked(e *effects) {
	c.streams.Add(-1)
	c.sub.dispatchLocked(e)
}
