package scale

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/internal/answer"
	"github.com/davidwartell/go-grpcpool/internal/jitter"
)

// This file and the others whose names begin with liveness say what proves that a
// connection is alive, when it is asked, how long it may take to answer, and what follows.
//
// Only a round trip proves anything. A call that was picked and answered is one: the
// connection was alive when the call was picked. Bytes that arrive are not: they arrive
// even if everything that this side sends is lost.
//
// When nothing has proved a connection alive for a while, it is probed, by an RPC on that
// very connection. If streams are in flight and nothing at all is heard, that is after
// busyShare of the probe interval; otherwise after leastIdle of it, and up to idleSpread
// more. If bytes are heard, of a download perhaps, and more than fewStreams streams have
// been opened since anything was last answered, that is after unansweredShare. So a
// connection in use that dies is found within half a probe interval and the probe timeout.
// One that nobody uses is probed less often, see liveness_quiet.go.
//
// A probe without an answer does not end a connection; see liveness_inquiry.go.
const (
	busyShare       = 0.35
	unansweredShare = 0.4 // more than busyShare, or the first answer of each window might come too late
	leastIdle       = 0.7
	idleSpread      = 0.2

	// leastProbed is the lowest limit of which a stream is kept free for probes.
	// Below it that would be too large a part: while every stream is taken, only the
	// server's HTTP/2 is asked.
	leastProbed = 10

	// A server that is slow is not dead. A probe may take patienceFactor times as
	// long as the second slowest of the last probes, if that is more than the
	// probe timeout, and mostPatience timeouts at most. The second slowest: on a
	// network that loses packets many probes take a retransmission or two, while
	// one slow answer alone was chance. An answer that came late, to a connection that
	// was silent already, makes it twice as long as that took, until one comes sooner.
	patienceFactor = 8
	mostPatience   = 6
	keptProbes     = 64

	// If the successor of an ejected connection does not answer either, it may be
	// the server that is slow, and more connections are no help: each ejection in a
	// row doubles the probe timeout for the address.

	// While probes have no answer, though the connection lives, each one doubles the
	// time until the next, up to rarestProbe.
	mostProbeDoublings = 5
	rarestProbe        = 30 * time.Second
)

// probeWindow is the time between two looks at a connection. The calls that are picked in
// it share one Done, which so knows when they were picked, and a pick allocates nothing.
type probeWindow struct {
	conn     *connection
	at       time.Duration // when it began, since connection.made
	wall     time.Time     // the same by the wall clock, without a monotonic one
	sent     int64         // bytes that had been sent by then
	opened   int64         // streams that had been opened by then
	done     func(balancer.DoneInfo)
	answered atomic.Bool // one of its calls was
}

// newWindow begins a window.
func (c *connection) newWindow() {
	now := time.Now()
	w := &probeWindow{conn: c, at: now.Sub(c.made), wall: now.Round(0), sent: c.tap.Sent(), opened: c.tap.Opened()}
	w.done = w.onDone
	if last := c.window.Load(); last != nil && last.slept() > stalled {
		c.wokeAt = w.at
	}
	c.window.Store(w)
}

// slept is how long the machine has slept since w began. The monotonic clock stood still
// then, and with it the timers. The wall clock knows better.
func (w *probeWindow) slept() time.Duration {
	return time.Now().Round(0).Sub(w.wall) - (w.conn.now() - w.at)
}

// now is the time on c's clock.
func (c *connection) now() time.Duration { return time.Since(c.made) }

// noteAlive notes that something was answered that was begun in w: c was alive then, and
// what had been sent before has arrived.
func (c *connection) noteAlive(w *probeWindow) {
	c.openedThen.Store(c.tap.Opened())
	c.answeredAt.Store(int64(c.now()))
	before := time.Duration(raise(&c.aliveAt, int64(w.at)))
	if n := w.sent - raise(&c.arrived, w.sent); n > smallBacklog {
		c.pace.Store(perSecond(n, c.now()-before))
	}
}

// raise makes v at least n, and returns what it was.
func raise(v *atomic.Int64, n int64) (before int64) {
	for {
		before = v.Load()
		if before >= n || v.CompareAndSwap(before, n) {
			return before
		}
	}
}

// heardAt is when bytes last came.
func (c *connection) heardAt() time.Duration { return c.tap.LastHeard().Sub(c.made) }

// startProbingLocked has c, which has become READY, probed from now on.
func (s *subchannel) startProbingLocked(c *connection) {
	c.newWindow()
	c.noteAlive(c.window.Load()) // it came through a handshake, and sent SETTINGS
	c.idleShare = jitter.Share(leastIdle, idleSpread)
	if connect := c.tap.Reached().Sub(c.dialledAt); connect > 0 { // a round trip or more
		// Much more if the first packet was lost, which the kernel does not count.
		if p, ok := c.tap.Progress(); ok && p.RoundTrip > 0 {
			connect = min(connect, p.RoundTrip)
		}
		c.probes = append(c.probes, min(connect, time.Second), min(connect, time.Second))
	}
	c.usedAt = c.now()
	s.armProbeLocked(c)
}

// armProbeLocked has probeTick called when c may need a probe.
func (s *subchannel) armProbeLocked(c *connection) {
	set := s.policy.settings.Load()
	if set.probeInterval <= 0 || s.closed || c.phase != phaseReady || !c.tap.Attached() {
		c.probeTimer.stop()
		return
	}
	wait := c.probeDueLocked(set) - c.now()
	switch {
	case c.restsLocked(set.probeInterval):
		wait = untilBeat(wait)
	case c.doubt != doubtQuiet: // otherwise a call that begins meanwhile has it armed anew
		wait = min(wait, c.doubled(min(scaled(set.probeInterval, busyShare), provedEnough/2)))
		if left := c.unansweredUntil(set.probeInterval) - c.now(); left > 0 {
			wait = min(wait, left)
		}
	}
	s.armLocked(&c.probeTimer, max(wait, time.Millisecond), c.probeTick)
}

// probeDueLocked is when c has to be probed, as things stand.
func (c *connection) probeDueLocked(set *settings) time.Duration {
	interval := set.probeInterval
	if c.restsLocked(interval) {
		return c.quietDueLocked(interval)
	}
	alive := time.Duration(c.aliveAt.Load())
	due := alive + c.doubled(scaled(interval, c.idleShare))
	if c.busy() {
		due = min(due, max(alive, c.heardAt())+c.doubled(scaled(interval, busyShare)))
		if c.tap.Opened()-c.openedThen.Load() > fewStreams {
			due = min(due, c.unansweredUntil(interval))
		}
	}
	return due
}

// unansweredUntil is how long c may go without an answer while calls are being begun on it.
func (c *connection) unansweredUntil(interval time.Duration) time.Duration {
	return time.Duration(c.answeredAt.Load()) + c.doubled(scaled(interval, unansweredShare))
}

// doubled is a time until the next probe, longer after probes without an answer.
func (c *connection) doubled(d time.Duration) time.Duration {
	if c.unanswered == 0 {
		return d
	}
	return max(d, min(d<<min(c.unanswered, mostProbeDoublings), rarestProbe))
}

// probeTick looks at a connection, and probes it if necessary. For one connection it never
// runs twice at a time. It runs on the goroutine of its timer.
func (c *connection) probeTick() {
	s := c.sub
	var window *probeWindow
	var due, urgent bool
	var patience time.Duration
	s.update(func(*effects) {
		last := c.window.Load()
		c.newWindow() // what is picked from now on and answered proves as much as a probe
		window = c.window.Load()
		if last.answered.Load() {
			c.noteAnswerLocked(c.now() - last.at) // or less
		}
		set := s.policy.settings.Load()
		if c.phase != phaseReady || set.probeInterval <= 0 {
			return
		}
		urgent = c.awaited || c.urgent
		c.urgent = false
		if c.wokeAt == window.at && c.doubt == doubtNone { // what was proved before counts no more
			c.doubtLocked(doubtQuiet)
		}
		due = urgent || c.wokeAt == window.at || c.now() >= c.probeDueLocked(set)
		patience = c.patienceLocked(set.probeTimeout)
		c.noteUseLocked(last, set)
	})
	if due && !c.inquire(window, urgent, patience) {
		return
	}
	s.update(func(e *effects) {
		c.idleShare = jitter.Share(leastIdle, idleSpread)
		c.serveProvedLocked(e)
		s.armProbeLocked(c)
	})
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
	return min(max(patience, patienceFactor*second, 2*c.lateBy), mostPatience*timeout)
}

// probe makes the RPC of a probe, and reports whether the server answered, be it with
// a status or a RST_STREAM. An RPC that failed in this process was not answered, for
// instance for want of credentials: nothing was sent then, or nothing has come.
func (c *connection) probe(ctx context.Context, begun *probeWindow, opened int64) bool {
	cc, unref := c.sc.GetOrBuildProducer(directBuilder{})
	defer unref()
	direct, ok := cc.(grpc.ClientConnInterface)
	if !ok {
		return true // this grpc-go has no such thing
	}
	if ask := c.sub.policy.channel.ask; ask != nil {
		heard := &askedConn{ClientConnInterface: direct}
		err := ask(ctx, heard)
		_, isStatus := status.FromError(err) // if not, it is the function's own error
		return err == nil || isStatus && ctx.Err() == nil && heard.last.Kind != answer.None && heard.last.Kind != answer.Unsent
	}
	_, err := healthpb.NewHealthClient(direct).Check(asProbe(ctx), &healthpb.HealthCheckRequest{})
	if err == nil {
		return true
	}
	_, isStatus := status.FromError(err)
	return isStatus && ctx.Err() == nil && c.tap.Opened() > opened && c.heardAt() >= begun.at
}

// asProbe tells the server that an RPC is a probe, by a header, whatever made the RPC.
func asProbe(ctx context.Context) context.Context {
	const header = "grpcpool-probe"
	if md, _ := metadata.FromOutgoingContext(ctx); len(md.Get(header)) > 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, header, "1")
}

// noteAnswerLocked is told that the server answered in the given time.
func (c *connection) noteAnswerLocked(took time.Duration) {
	s := c.sub
	c.unanswered = 0
	c.unlearnLateLocked(took)
	if c.replace.why == whyStuck && !c.replace.successor { // it answers again
		c.replace = replacement{}
		s.planByAgeLocked(c)
		s.armReplaceLocked()
	}
	if took < s.policy.settings.Load().probeTimeout/2 {
		s.noteFastAnswerLocked()
	}
}

// unlearnLateLocked is told that an answer took so long. If that is much less than the one
// that ended a silence, the server had stopped for a moment, and the network is no slower.
func (c *connection) unlearnLateLocked(took time.Duration) {
	if took < c.lateBy/2 {
		c.lateBy = 0
	}
}

// noteFastAnswerLocked is told that the server answered quickly. So it is not slow, and the
// connections that were ejected before were really dead.
func (s *subchannel) noteFastAnswerLocked() {
	s.policy.channel.memory.forgetEjections(s.addr())
	s.stuckAt, s.stuckPause = time.Time{}, 0
}

// directBuilder builds, as a producer, the way to make RPCs on one connection.
type directBuilder struct{}

// Build implements balancer.ProducerBuilder.
func (directBuilder) Build(cc any) (balancer.Producer, func()) { return cc, func() {} }
