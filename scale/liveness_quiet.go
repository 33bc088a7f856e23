package scale

import (
	"time"

	"github.com/davidwartell/go-grpcpool/internal/jitter"
	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// Probes follow use. A connection is in use while calls are being begun on it. When none
// was since the last look it is quiet. For provedEnough it is still probed as before, as
// calls may be put on it without further proof. Then each look that finds it quiet doubles
// the next interval, up to that of WithIdleProbeInterval. A network that dies meanwhile is
// found by the kernel's keepalive, at no cost to this process.
//
// A quiet connection has doubtBit set, so that the next call does not find it free and comes
// to calledLocked. If the last proof is recent, the connection is in use again and the call
// goes on. Otherwise the call waits in the queue until the server's HTTP/2 has acknowledged
// a question, which takes one round trip whatever the handlers do. So the first call after a
// quiet night is not sent on a connection that has died. If there is no answer, what follows
// is what follows for every connection that is silent.
//
// The bit is all that tells of a call that begins; a pick counts nothing. A connection with
// few calls gets it at every look, so one of its calls per look takes that way.
//
// What this package and the pool above it ask by themselves is no use: probes, health
// watches and calls with priority take streams on a quiet connection and leave it quiet.
const (
	// provedEnough is the age of the last proof up to which a call does not wait.
	provedEnough = 5 * time.Second

	// A stream that has been open for streamsAreOld since the last call was begun is no use
	// either. It holds the interval at openInterval at most.
	streamsAreOld = 30 * time.Second
	openInterval  = 5 * time.Second

	// A connection on which more than fewStreams were opened since the last look is in use
	// beyond doubt: so many are not probes.
	fewStreams = 8

	// A quiet connection is probed when leastQuiet of its interval have passed since the
	// last proof, and up to quietSpread more, and up to one beat more.
	leastQuiet  = 0.9
	quietSpread = 0.05

	// Looks at quiet connections happen on the beats of the process. So a thousand of them
	// wake it a few times a second and not a thousand times.
	beat = 250 * time.Millisecond
)

// keepAlive is how the kernel looks after a connection. With TCP_USER_TIMEOUT, Linux ends
// a connection when that has passed since the last packet, however few keepalives it has
// sent; see userTimeout. A network that loses one packet in twenty loses one exchange in
// ten, so on thousands of quiet connections many are lost in a row.
var keepAlive = tap.KeepAlive{Idle: 5 * time.Second, Interval: time.Second, Count: 10}

// userTimeout is how long the peer's kernel may take to acknowledge data, or a keepalive. It
// leaves time for every keepalive.
func (s *settings) userTimeout() time.Duration {
	return max(mostPatience*s.probeTimeout, keepAlive.Idle+time.Duration(keepAlive.Count)*keepAlive.Interval)
}

// The beats of the processes of a fleet do not fall together.
var (
	processStart = time.Now()
	beatPhase    = jitter.UpTo(beat)
)

// untilBeat lengthens d so that it ends on a beat.
func untilBeat(d time.Duration) time.Duration {
	at := (time.Since(processStart) + beatPhase + d) % beat
	if at < 0 { // in a test with a clock of its own
		at += beat
	}
	return d + (beat-at)%beat
}

// noteUseLocked is called at a look, which ends the window last. It decides whether c is in
// use, and what its next interval is.
func (c *connection) noteUseLocked(last *probeWindow, set *settings) {
	many := c.tap.Opened()-last.opened > fewStreams
	used := c.called || many || c.doubt == doubtNone && last.answered.Load() || c.overtakenLocked()
	c.called = false
	if used {
		c.usedAt = c.now()
	}
	switch longest := max(set.idleProbeInterval, set.probeInterval); {
	case used, c.busy() && c.now()-c.usedAt < streamsAreOld:
		c.quietFor = 0
	case c.quietFor == 0, c.now()-c.usedAt < provedEnough:
		c.quietFor = set.probeInterval
	default:
		c.quietFor = min(2*c.quietFor, longest)
	}
	if !many && c.doubt == doubtNone && c.sub.queue.length == 0 && !c.overtakenLocked() {
		c.doubtLocked(doubtQuiet)
	}
}

// overtakenLocked reports whether c has room while a younger connection is in use. Then c
// must not be quiet, or its calls would go there for ever.
func (c *connection) overtakenLocked() bool {
	if c.roomLocked() == 0 {
		return false
	}
	ready := *c.sub.ready.Load()
	for i := len(ready) - 1; i >= 0 && ready[i] != c; i-- {
		if ready[i].doubt == doubtNone {
			return true
		}
	}
	return false
}

// restsLocked reports whether c is quiet for longer than the probe interval.
func (c *connection) restsLocked(interval time.Duration) bool {
	return c.doubt == doubtQuiet && !c.awaited && c.quietFor > interval
}

// roomLocked is how many calls c could take, were it not in doubt.
func (c *connection) roomLocked() int64 { return max(c.softLimit.Load()-c.inFlight(), 0) }

// quietDueLocked is when c, which is quiet, has to be probed.
func (c *connection) quietDueLocked(least time.Duration) time.Duration {
	interval := c.quietFor
	if c.busy() {
		interval = min(interval, max(openInterval, least))
	}
	share := leastQuiet + quietSpread*(c.idleShare-leastIdle)/idleSpread
	return time.Duration(c.aliveAt.Load()) + c.doubled(scaled(interval, share))
}

// calledLocked is told that a call finds no stream that is free. It reports whether a
// connection has just left its quiet.
func (s *subchannel) calledLocked() bool {
	return s.wakeLockedFor(int64(s.queue.length) + 1)
}

// wakeLockedFor has quiet connections take calls again, as many as n calls need, the oldest
// first: at once or, if nothing has proved them alive lately, as soon as they are. It
// reports whether one of them takes calls now.
func (s *subchannel) wakeLockedFor(n int64) (woken bool) {
	for _, c := range *s.ready.Load() {
		if n <= 0 {
			break
		}
		switch {
		case c.doubt == doubtSilent:
			continue
		case c.doubt == doubtNone, c.awaited:
		case c.provedLatelyLocked(), s.policy.settings.Load().queueInTransport: // whose calls must not wait here
			c.useLocked()
			woken = true
		default:
			c.proveLocked()
		}
		n -= c.roomLocked()
	}
	return woken
}

// awaitedLocked reports whether calls wait for a quiet connection to be proved.
func (s *subchannel) awaitedLocked() bool {
	for _, c := range *s.ready.Load() {
		if c.awaited && c.doubt == doubtQuiet {
			return true
		}
	}
	return false
}

// provedLatelyLocked reports whether c was alive a moment ago, and after the machine slept.
func (c *connection) provedLatelyLocked() bool {
	alive := time.Duration(c.aliveAt.Load())
	return alive >= c.wokeAt && c.now()-alive+max(c.window.Load().slept(), 0) < provedEnough
}

// useLocked has c be in use from now on.
func (c *connection) useLocked() {
	c.called, c.awaited, c.quietFor, c.usedAt = true, false, 0, c.now()
	if c.doubt == doubtQuiet {
		c.doubt = doubtNone
		c.streams.And(^int64(doubtBit))
	}
	c.splitWindowLocked()
	c.probeTimer.stop()
	c.sub.armProbeLocked(c)
}

// splitWindowLocked begins a window for a call that is about to be begun on c after a long
// window without one. Otherwise its answer would prove only that c was alive at the last
// look. An inquiry that is going on has begun a window of its own, and needs to know of its
// calls.
func (c *connection) splitWindowLocked() {
	if !c.probeTimer.running {
		c.newWindow()
	}
}

// proveLocked has c asked now whether it is alive, as a call waits for it.
func (c *connection) proveLocked() {
	c.awaited, c.awaitedAt = true, c.now()
	c.askLocked()
}

// askLocked has the server's HTTP/2 asked now.
func (c *connection) askLocked() {
	c.urgent = true
	select {
	case c.hurry <- struct{}{}: // for the inquiry that is going on, if there is one
	default:
	}
	c.probeTimer.stop()
	c.sub.armLocked(&c.probeTimer, 0, c.probeTick)
}

// noteProved is told by an inquiry, which was begun with w and need not have come to its
// end, that HTTP/2 has acknowledged what it was asked at the given time.
func (c *connection) noteProved(w *probeWindow, asked time.Duration) {
	c.noteAlive(w)
	raise(&c.aliveAt, int64(asked))
	c.sub.update(func(e *effects) {
		c.unlearnLateLocked(c.now() - asked)
		c.serveProvedLocked(e)
	})
}

// serveProvedLocked lets c, if it has been proved, take the calls that wait for it, or those
// that a younger connection gets instead of it.
func (c *connection) serveProvedLocked(e *effects) {
	proved := c.provedLatelyLocked() || c.awaited && time.Duration(c.aliveAt.Load()) >= c.awaitedAt // after a round trip of any length
	if c.doubt == doubtQuiet && (c.awaited || c.overtakenLocked()) && proved {
		c.trustLocked(e)
		c.useLocked()
	}
}
