package scale

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// Every connection is watched. A call that was picked and answered proves that it
// was alive when the call was picked. When nothing has proved that for a while, an
// RPC on that very connection asks: after busyShare of the probe interval if
// streams are in flight and nothing at all is heard, else after leastIdle of it,
// up to idleSpread more. So what happens to a connection in use is known within
// less than half a probe interval and the probe timeout, and what happens to any
// within one interval and the timeout.
//
// Bytes that come in prove nothing by themselves: they come although this side's
// are lost. HTTP/2's PING would do, but servers count them and hang up.
const (
	busyShare  = 0.35
	leastIdle  = 0.7
	idleSpread = 0.2

	// leastProbed is the lowest limit of which a stream is kept free for probes.
	// Below it that would be too large a part: there only finished calls prove
	// anything while every stream is taken, and what is left is keepalive.
	leastProbed = 10

	// A server that is slow is not dead. A probe may take patienceFactor times as
	// long as the second slowest of the last probes, if that is more than the
	// probe timeout, and mostPatience timeouts at most. The second slowest: on a
	// network that loses packets many probes take a retransmission or two, while
	// one slow answer alone was chance.
	patienceFactor = 8
	mostPatience   = 6
	keptProbes     = 64

	// If the successor of an ejected connection does not answer either, it may be
	// the server that is slow, and more connections are no help: each ejection in a
	// row doubles the probe timeout for the address.

	// A connection that moves data both ways is spared for mostMoving timeouts,
	// though no probe is answered.
	mostMoving = 15

	// A timer that is late by stalled tells that this process did not run. What
	// it did not hear in that time proves nothing.
	stalled = 250 * time.Millisecond
)

// lap is the time between two looks at a connection. The calls that are picked in
// it share one Done, which so knows when they were picked.
type lap struct {
	conn     *connection
	at       time.Duration // when it began, since connection.made
	done     func(balancer.DoneInfo)
	answered atomic.Bool // one of its calls was
}

// newLap begins a lap.
func (c *connection) newLap() {
	l := &lap{conn: c, at: c.now()}
	l.done = l.onDone
	c.lap.Store(l)
}

// onDone is gRPC's word that a call has ended, or that it never began because the
// picked connection was gone.
func (l *lap) onDone(info balancer.DoneInfo) {
	c := l.conn
	if info.BytesReceived && !l.answered.Load() {
		l.answered.Store(true)
		c.prove(l.at)
	}
	if c.drainedAt.Load() != 0 && !info.BytesReceived && status.Code(info.Err) == codes.Unavailable {
		c.orphaned()
	}
	c.release()
}

// now is the time on c's clock.
func (c *connection) now() time.Duration { return time.Since(c.made) }

// prove notes that c was alive at the given time.
func (c *connection) prove(at time.Duration) {
	c.proved.Store(true)
	for {
		last := c.provedAt.Load()
		if last >= int64(at) || c.provedAt.CompareAndSwap(last, int64(at)) {
			return
		}
	}
}

// heardAt is when bytes last came.
func (c *connection) heardAt() time.Duration { return c.tap.LastHeard().Sub(c.made) }

// watchLocked begins the watch over a connection that has become READY.
func (s *subchannel) watchLocked(c *connection) {
	c.newLap()
	c.answered = c.now()
	c.provedAt.Store(int64(c.answered)) // it came through a handshake, and sent SETTINGS
	c.idleShare = randomShare(leastIdle, idleSpread)
	if connect := c.tap.Reached().Sub(c.dialledAt); connect > 0 { // a round trip or more
		// Much more if the first packet was lost, which the kernel does not count.
		if p, ok := c.tap.Progress(); ok && p.RoundTrip > 0 {
			connect = min(connect, p.RoundTrip)
		}
		c.probes = append(c.probes, min(connect, time.Second), min(connect, time.Second))
	}
	s.armLookLocked(c)
}

// armLookLocked has look called when there may be something to see.
func (s *subchannel) armLookLocked(c *connection) {
	interval := s.policy.settings.Load().probeInterval
	if interval <= 0 || s.closed || c.phase != phaseReady || !c.tap.Attached() {
		c.look.stop()
		return
	}
	due := c.probeDueLocked(interval) - c.now()
	// A call that begins meanwhile makes it earlier.
	s.setLocked(&c.look, max(min(due, scaled(interval, busyShare)), time.Millisecond), c.watch)
}

// probeDueLocked is when c has to be probed, as things stand.
func (c *connection) probeDueLocked(interval time.Duration) time.Duration {
	proved := time.Duration(c.provedAt.Load())
	due := proved + scaled(interval, c.idleShare)
	if c.busy() {
		due = min(due, max(proved, c.heardAt())+scaled(interval, busyShare))
	}
	return due
}

// watch looks at a connection, and probes it if need be. It runs once at a time
// for a connection, on a goroutine of its timer.
func (c *connection) watch() {
	s := c.sub
	last := c.lap.Load()
	c.newLap()
	if last.answered.Load() {
		c.trust(c.now() - last.at) // or less
	}
	s.mu.Lock()
	interval := s.policy.settings.Load().probeInterval
	due := c.phase == phaseReady && interval > 0 && c.now() >= c.probeDueLocked(interval)
	var patience time.Duration
	if due {
		patience = c.patienceLocked(s.policy.settings.Load().probeTimeout)
	}
	s.mu.Unlock()
	var verdict error
	if due {
		c.probing.Store(true)
		if c.take(c.quota.Load()) { // if none is free, calls that end are proof enough
			verdict = c.probe(patience)
			c.release()
		}
		c.probing.Store(false)
	}
	if verdict != nil {
		c.eject(verdict)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.idleShare = randomShare(leastIdle, idleSpread)
	s.armLookLocked(c)
}

// patienceLocked is how long a probe may take.
func (c *connection) patienceLocked(timeout time.Duration) time.Duration {
	known := c.sub.policy.channel.memory.recall(c.sub.addr())
	patience := timeout << min(known.ejected, mostDoublings)
	slowest, second := time.Duration(0), time.Duration(0)
	for _, took := range c.probes {
		if took > slowest {
			slowest, second = took, slowest
		} else {
			second = max(second, took)
		}
	}
	return min(max(patience, patienceFactor*second), mostPatience*timeout)
}

// probe asks the server for a sign of life, and returns why c is to be ejected,
// or nil.
func (c *connection) probe(patience time.Duration) error {
	start := c.now()
	before, _ := c.tap.Progress()
	answered := c.ask(patience)
	if took := c.now() - start; !answered && took > patience+stalled {
		answered = c.ask(patience)
	}
	closing := c.sub.policy.ctx.Err() != nil
	alive := answered || closing || time.Duration(c.provedAt.Load()) >= start
	if alive {
		c.answered = start
	} else {
		alive = start-c.answered < mostMoving*c.sub.policy.settings.Load().probeTimeout && c.moves(start, before)
	}
	c.noteProbe(start, answered, alive)
	if alive {
		c.prove(start)
		return nil
	}
	return fmt.Errorf("scale: connection to %s ejected: no answer to a probe within %v (last byte heard %v ago, limit %d, %d streams in flight)",
		c.sub.addr(), patience.Round(time.Millisecond), (c.now() - c.heardAt()).Round(time.Millisecond), c.tap.Limit(), c.inFlight()-1)
}

// ask makes the RPC, and reports whether it was over in time. However it ended, it
// was the server that ended it: by an answer, by a status, by a RST_STREAM. Or the
// connection is lost, which gRPC knows by itself.
func (c *connection) ask(patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(c.sub.policy.ctx, patience)
	defer cancel()
	cc, unref := c.sc.GetOrBuildProducer(directBuilder{})
	defer unref()
	direct, ok := cc.(grpc.ClientConnInterface)
	if !ok {
		return true // this grpc-go has no such thing
	}
	if ask := c.sub.policy.channel.ask; ask != nil {
		return ask(ctx, direct) == nil
	}
	_, _ = healthpb.NewHealthClient(direct).Check(ctx, &healthpb.HealthCheckRequest{})
	return ctx.Err() == nil
}

// moves reports whether both directions of c have moved since start, though no
// answer came: it is stuck behind other streams' data then. This side's direction
// moves if the peer's kernel takes what was sent.
func (c *connection) moves(start time.Duration, before tap.Progress) bool {
	if c.heardAt() < start {
		return false
	}
	after, ok := c.tap.Progress()
	return ok && (after.Left == 0 || after.Acked > before.Acked)
}

// noteProbe keeps what a probe came to.
func (c *connection) noteProbe(start time.Duration, answered, alive bool) {
	s := c.sub
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.probes++
	if !alive {
		s.stats.probesFailed++
	}
	if answered {
		took := c.now() - start
		c.trust(took)
		if len(c.probes) == keptProbes {
			c.probes = slices.Delete(c.probes, 0, 1)
		}
		c.probes = append(c.probes, took)
	}
}

// trust is told that the server answered in the given time. If that was soon, the
// connections that were ejected before were dead, and the server is not slow.
func (c *connection) trust(took time.Duration) {
	s := c.sub
	if took < s.policy.settings.Load().probeTimeout/2 {
		s.policy.channel.memory.trust(s.addr())
	}
}

// eject takes c out of use, has its successor dialled, and ends the RPCs on it
// with why.
func (c *connection) eject(why error) {
	s := c.sub
	s.mu.Lock()
	if s.closed || c.phase != phaseReady {
		s.mu.Unlock()
		return
	}
	dials := s.outLocked(c)
	s.stats.ejected++
	c.counted = true
	s.policy.channel.memory.note(s.addr(), func(l *learned) { l.ejected++ })
	s.lastErr, s.distrust = why, true
	s.event(EventEjected, c, time.Since(c.readyAt), why.Error())
	s.mu.Unlock()
	s.dial(dials)
	c.tap.Kill(why)
}

// directBuilder builds, as a producer, the way to make RPCs on one connection.
type directBuilder struct{}

// Build implements balancer.ProducerBuilder.
func (directBuilder) Build(cc any) (balancer.Producer, func()) { return cc, func() {} }
