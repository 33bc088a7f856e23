package scale

import (
	"context"
	"slices"
	"time"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// A probe without an answer decides nothing yet. When half of its time is over, the
// server's HTTP/2 is asked as well, which answers at once whatever the handlers do (see
// tap.State.Ask). If it does, the connection is alive: the handlers are busy, or the probe
// never left this process. The connection keeps its calls, and if the probe was sent, a
// successor is dialled for new ones. If neither is answered, the connection is silent (see
// liveness_silence.go), and in the end it is ejected, unless there is a reason to wait:
//
//   - This process did not run, or has not read what has come; see
//     liveness_witness.go.
//   - Both directions move, that is, bytes are heard and the peer's kernel takes what
//     was sent: the answer is stuck behind other streams' data.
//   - The peer's kernel has not taken the question yet, and takes what is before it.
//   - Much was sent since the last thing that is known to have arrived, and may lie in
//     the buffers of a proxy, whose kernel takes everything at once.
const (
	// A connection on which bytes arrive, though nothing is answered, is spared for
	// mostMoving timeouts at most. So is one with a backlog, and one in a process that
	// does not get to read.
	mostMoving = 15

	// The first smallBacklog bytes of a backlog take no time. The rest may take
	// backlogFactor times as long as it would at the recent pace, or at slowPace if
	// that is not known.
	smallBacklog  = 64 << 10
	backlogFactor = 2
	slowPace      = 128 << 10 // bytes a second

	// A connection that does not answer is replaced if no other one of the address was
	// within leastStuckPause, which doubles up to mostStuckPause while nothing is
	// answered soon: then it is the server, and further connections are no help.
	leastStuckPause = time.Second
	mostStuckPause  = time.Minute
	whyStuck        = "no answer to a probe"
)

// finding is what an inquiry comes to.
type finding int

const (
	findingAnswered     finding = iota // the probe was answered, or a call that was picked since
	findingAcknowledged                // HTTP/2 was, and nothing else was asked
	findingStuck                       // HTTP/2 was, and the probe was not
	findingDead                        // neither was, for long enough
	findingMoot                        // the connection has ended, or the channel is closed
)

// inquiry asks whether a connection is alive. It belongs to the goroutine of probeTick.
type inquiry struct {
	conn     *connection
	window   *probeWindow // begun with it
	opened   int64
	urgent   bool // HTTP/2 is asked first: a call waits for the answer, or is on its way already
	patience time.Duration
	since    time.Duration // when it was begun, or begun anew, on the connection's clock
	deadline time.Duration // no conclusion before it
	stalls   int
	ranLate  bool // this process ran late

	silent    bool            // nothing was answered within patience
	nudged    <-chan struct{} // connection.nudge; nil: not silent
	outdoneAt time.Duration   // when somebody else was seen to have answered; negative: never

	probed   bool
	reply    chan bool     // of the probe: whether the server answered; nil once that is known
	answered bool          // it did
	took     time.Duration // so long

	question     *tap.Question // to HTTP/2; nil: not asked yet
	askedAt      time.Duration // when it was
	acknowledged bool          // it was answered
	hurried      bool          // a call has come since that waits for the answer

	sentTo  uint64        // where the question is in what the kernel sends; 0: not known
	taken   uint64        // bytes that the peer's kernel has taken
	takenAt time.Duration // when that was last seen to grow; negative: never
}

// inquire finds out whether c is alive and does what follows. It reports whether c is to
// be probed again later.
func (c *connection) inquire(window *probeWindow, urgent bool, patience time.Duration) bool {
	i := &inquiry{conn: c, window: window, opened: c.tap.Opened(), urgent: urgent, patience: patience, takenAt: -1}
	i.begin(i.window.at)
	found := i.find()
	i.note(found)
	if found == findingDead {
		i.convict()
		return false
	}
	i.endSilence()
	if found == findingStuck {
		c.replaceStuck()
	}
	return true
}

// begin has the time for the answers begin at now.
func (i *inquiry) begin(now time.Duration) {
	i.since, i.deadline, i.outdoneAt = now, now+i.patience, -1
}

// find probes, if there is a stream for it, and waits for what comes of it.
func (i *inquiry) find() finding {
	c := i.conn
	if i.urgent && i.askFirst() {
		return findingAcknowledged
	}
	if c.probing.Load() || !c.takeForProbe() { // the last probe has not come back, or there is no stream
		if i.question == nil {
			i.askHTTP2()
		}
		return i.await()
	}
	ctx, cancel := context.WithCancel(c.sub.policy.ctx)
	defer cancel()
	reply := make(chan bool, 1)
	i.reply, i.probed = reply, true
	c.probing.Store(true)
	release := func() {
		c.probing.Store(false) // first: a stream that is a call's must not be taken for the probe's
		c.release()
	}
	begun := c.sub.policy.tasks.run(func() {
		answered := c.probe(ctx, i.window, i.opened)
		release()
		reply <- answered
	})
	if !begun {
		release()
		return findingMoot
	}
	return i.await()
}

// askFirst asks HTTP/2 before it comes to a probe, as a call needs to know, and reports
// whether it was answered within half of the time.
func (i *inquiry) askFirst() bool {
	c := i.conn
	i.askHTTP2()
	for until := c.now() + i.patience/2; !i.acknowledged && c.now() < until && c.sub.policy.ctx.Err() == nil; {
		if i.pause(until-c.now()) && i.stalls < mostStalls {
			i.stalls++
			i.ranLate = true
			i.begin(c.now())
			until = c.now() + i.patience/2
		}
	}
	return i.acknowledged
}

// await waits until it is known how c is.
func (i *inquiry) await() finding {
	for {
		stood := i.pause(i.untilLook())
		i.lookAround()
		if found, done := i.look(stood); done {
			return found
		}
	}
}

// look decides what follows from what has come. stood says that the process did not run
// since the last look.
func (i *inquiry) look(stood bool) (found finding, done bool) {
	c := i.conn
	switch {
	case i.answered, i.silent && i.window.answered.Load():
		return findingAnswered, true
	case c.sub.policy.ctx.Err() != nil, c.streams.Load()&outBit != 0:
		return findingMoot, true
	case stood && i.stalls < mostStalls:
		i.stalls++
		i.ranLate = true
		i.begin(c.now())
		i.askHTTP2()
	case i.question == nil:
		i.askHTTP2()
	case i.outdated():
		i.begin(c.now())
		i.askHTTP2()
	case i.acknowledged && i.silent: // the probe gets its time anew
		i.endSilence()
		i.begin(c.now())
	case i.acknowledged && i.reply == nil:
		return i.alive(), true
	case c.now() >= i.deadline && (!i.silent || c.now() >= i.verdictAt()):
		return i.conclude()
	}
	return findingDead, false
}

// outdated reports whether a call has come that waits for an answer, and the one that came
// is too old for it.
func (i *inquiry) outdated() bool {
	return i.hurried && i.acknowledged && i.conn.now()-i.askedAt >= provedEnough
}

// untilLook is the time until the next look at what has come.
func (i *inquiry) untilLook() time.Duration {
	now := i.conn.now()
	wait := min(i.patience/4, i.deadline-now)
	switch {
	case i.question == nil:
		wait = i.patience / 2
	case i.silent:
		wait = min(i.patience/silentLooks, max(i.deadline, i.verdictAt())-now)
	}
	return max(wait, time.Millisecond)
}

// pause waits until something happens, for d at most. It reports whether the process
// stalled meanwhile.
func (i *inquiry) pause(d time.Duration) bool {
	var acknowledged <-chan struct{}
	if i.question != nil && !i.acknowledged {
		acknowledged = i.question.Answered()
	}
	begun, timer := time.Now(), time.NewTimer(d)
	defer timer.Stop()
	select {
	case answered := <-i.reply:
		i.noteReply(answered)
	case <-acknowledged:
	case <-i.conn.hurry:
		i.hurried = true
	case <-i.nudged:
	case <-timer.C:
	case <-i.conn.sub.policy.ctx.Done():
	}
	stood := processStalled(begun, d)
	i.gather()
	return stood
}

// gather takes what is there without waiting for it.
func (i *inquiry) gather() {
	select {
	case answered := <-i.reply:
		i.noteReply(answered)
	default:
	}
	if i.question == nil {
		return
	}
	select {
	case <-i.question.Answered():
		if !i.acknowledged {
			i.acknowledged = true
			i.conn.noteProved(i.window, i.askedAt)
		}
	default:
	}
	p, known := i.conn.tap.Progress()
	if !known {
		return
	}
	if i.taken > 0 && p.Acked > i.taken {
		i.takenAt = i.conn.now()
	}
	i.taken = p.Acked
	if i.sentTo == 0 && !i.question.Written().IsZero() {
		i.sentTo = p.Acked + p.Left
	}
}

func (i *inquiry) noteReply(answered bool) {
	i.reply = nil
	i.answered, i.took = answered, i.conn.now()-i.window.at
}

// askHTTP2 asks the HTTP/2 of the server, be it again.
func (i *inquiry) askHTTP2() {
	select {
	case <-i.conn.hurry: // this question is for that call too
	default:
	}
	i.askedAt, i.acknowledged, i.hurried = i.conn.now(), false, false
	i.question, i.sentTo = i.conn.tap.Ask(), 0
}

// alive is the finding when HTTP/2 has answered. A probe that never left this process,
// as its credentials were not to be had, says nothing of the server.
func (i *inquiry) alive() finding {
	if i.probed && i.conn.tap.Opened() > i.opened {
		return findingStuck
	}
	return findingAcknowledged
}

// conclude is called when the time is over. It reports false if there is a reason to wait.
func (i *inquiry) conclude() (found finding, done bool) {
	c := i.conn
	if !letOthersRun(c.sub.policy.ctx) {
		i.ranLate = true
	}
	i.gather()
	switch {
	case i.answered, i.window.answered.Load():
		return findingAnswered, true
	case i.acknowledged:
		return i.alive(), !i.silent
	}
	until, now := i.wait(), c.now()
	switch {
	case until > now:
		i.deadline = until
	case now >= i.verdictAt():
		return findingDead, true
	case !i.silent:
		i.fallSilent()
	}
	return findingDead, false
}

// wait is until when there is reason to wait for a sign of life.
func (i *inquiry) wait() (until time.Duration) {
	c := i.conn
	now := c.now()
	if at := i.question.Written(); !at.IsZero() {
		until = at.Sub(c.made) + i.patience/2
	}
	n, known := c.tap.Unread()
	if known && n > 0 && now-c.heardAt() > i.patience/4 && now-i.window.at < i.longest() {
		until = max(until, now+i.patience/4)
	}
	return max(until, i.whileDataMoves(now))
}

// whileDataMoves is until when what moves on the connection is a reason to wait.
func (i *inquiry) whileDataMoves(now time.Duration) (until time.Duration) {
	c := i.conn
	heard, backlog := c.heardAt(), c.backlog(i.window.sent)
	p, known := c.tap.Progress()
	grows := i.takenAt >= 0 && now-i.takenAt < i.patience
	flows := known && (p.Left == 0 || grows)
	if grows && p.Acked < i.sentTo {
		until = i.takenAt + i.patience
	}
	if flows && heard >= i.window.at && now-time.Duration(c.aliveAt.Load()) < i.longest() {
		until = max(until, heard+2*i.patience) // a network may well pause for one
	}
	switch {
	case flows, !known:
		until = max(until, i.window.at+min(i.patience+backlog, i.longest()))
	case p.LastAck < i.patience: // the peer's kernel has no room now, and tells of it in large steps
		most := mostPatience * c.sub.policy.settings.Load().probeTimeout
		until = max(until, max(i.window.at, i.takenAt)+i.patience+min(backlog, most))
	}
	return until
}

// longest is how long a connection is spared though nothing is answered.
func (i *inquiry) longest() time.Duration {
	return mostMoving * i.conn.sub.policy.settings.Load().probeTimeout
}

// backlog is how long it may take what was sent on c to arrive, the first sent bytes.
func (c *connection) backlog(sent int64) time.Duration {
	n := max(sent-c.arrived.Load()-smallBacklog, 0)
	pace := c.pace.Load()
	if pace <= 0 {
		pace = slowPace
	}
	return time.Duration(backlogFactor * float64(n) / float64(pace) * float64(time.Second))
}

// perSecond is the pace of n bytes in d.
func perSecond(n int64, d time.Duration) int64 {
	return int64(float64(n) / max(d, time.Microsecond).Seconds())
}

// note keeps what an inquiry came to.
func (i *inquiry) note(found finding) {
	c := i.conn
	s := c.sub
	if i.answered {
		c.hasAnswered.Store(true)
	}
	if i.answered || i.acknowledged {
		c.noteAlive(i.window)
	}
	s.update(func(*effects) { i.noteLocked(found) })
}

func (i *inquiry) noteLocked(found finding) {
	c := i.conn
	s := c.sub
	if i.probed {
		s.stats.probes++
		if found == findingDead {
			s.stats.probesFailed++
		}
	}
	switch {
	case i.answered && i.took <= i.patience && !i.ranLate:
		c.noteAnswerLocked(i.took)
		if len(c.probes) == keptProbes {
			c.probes = slices.Delete(c.probes, 0, 1)
		}
		c.probes = append(c.probes, i.took)
	case found == findingAnswered:
		c.unanswered = 0
	case i.probed:
		c.unanswered++
	}
}

// replaceStuck plans a successor for c, which is alive and does not answer. New calls go to
// the successor; those on c go on.
func (c *connection) replaceStuck() {
	s := c.sub
	s.update(func(*effects) {
		now := time.Now()
		if s.closed || c.phase != phaseReady || now.Sub(s.stuckAt) < s.stuckPause {
			return
		}
		s.stuckAt, s.stuckPause = now, min(max(2*s.stuckPause, leastStuckPause), mostStuckPause)
		s.planLocked(c, now, whyStuck)
		s.armReplaceLocked()
	})
}
