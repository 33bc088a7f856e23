package scale

import (
	"fmt"
	"time"

	"google.golang.org/grpc/connectivity"

	"github.com/davidwartell/go-grpcpool/internal/jitter"
	"github.com/davidwartell/go-grpcpool/internal/pause"
)

// How dials are supervised. gRPC gives a dial 20 seconds, and after a failure it waits
// for up to two minutes, whether calls need the connection or not. Here:
//
// While there is demand (calls that find no connection), the pause after a dial that
// failed is that of package pause: short, and growing with the outage, if the dial did not
// reach the server, which it cost nothing; and ever longer if it did (see
// liveness_ends.go). Without demand gRPC's backoff is left alone.
//
// A dial that has not reached the server after leastPatience, when the address is known to
// connect faster, is given up while there is demand: the packet that asked for the
// connection was lost, and TCP asks again ever more seldom. An address that never was
// reached gets firstConnect. One that took longer the last time gets three times as long,
// and after firstConnect others are begun beside the first dial, as below: it may be near
// again, and the packet lost.
//
// The network may also have become slow. So when such dials have failed briefOutage times
// in a row, which takes some ten seconds, the child is told later that they failed, and
// twice as late each further time, up to longestConnect. In that time one dial, the long
// one, goes on, and others, the side dials, are begun and dropped beside it as often as
// ever, one at a time. The first to get through is used: the long one if the network is
// slow, a side dial if an outage is over.
//
// What follows when a dial has reached the server is in handshakes.go.
//
// WithUnsupervised turns all of this off.
const (
	leastPatience = 750 * time.Millisecond
	dialSpread    = 150 * time.Millisecond // on top of it, so that clients do not dial in step
	reachedWithin = 100 * time.Millisecond // after which it is noticed that one of several dials has got through

	firstConnect   = 3 * time.Second
	connectFactor  = 3
	briefOutage    = 12               // some ten seconds, in which dials go one at a time and callers are told within one
	longestConnect = 20 * time.Second // gRPC's own patience with a dial
	asksAgain      = time.Second      // after which TCP sends a lost SYN again, the first time (RFC 6298, section 2)
	mostDoublings  = 3
)

// noteDemand is called for every call that finds no connection.
func (p *policy) noteDemand() {
	if !p.demanded.Load() && !p.demanded.Swap(true) {
		p.tasks.run(p.passDemandOn)
	}
}

// passDemandOn tells every subchannel that calls find no connection.
func (p *policy) passDemandOn() {
	for _, s := range p.subchannels() {
		s.update(func(*effects) { s.wanted = true })
		s.superviseDials()
	}
}

// useDemandLocked is called when a dial or a connection answers the demand: only calls
// from now on are new demand.
func (s *subchannel) useDemandLocked() {
	s.wanted = false
	s.policy.demanded.Store(false)
}

// beginDialLocked notes that c is to connect, when the budget has a place for it.
func (s *subchannel) beginDialLocked(c *connection, e *effects) {
	c.beside = s.state != connectivity.Ready && s.lateLocked() != nil
	c.moveLocked(phaseDialling)
	c.longDial, c.late, c.unheard = false, false, false // of an earlier dial
	c.sideDial = s.longDialLocked() != nil
	c.spread = leastPatience + jitter.UpTo(dialSpread)
	c.dialledAt = time.Now()
	if c.takePlaceLocked() {
		s.connectLocked(c, e)
	}
}

// connectLocked begins c's dial.
func (s *subchannel) connectLocked(c *connection, e *effects) {
	now := time.Now()
	c.dialledAt, s.begunAt = now, now
	c.patience = s.handshakePatience()
	if s.downSince.IsZero() && s.oldest() == nil {
		s.downSince = now
	}
	s.superviseAnewLocked()
	e.connect = append(e.connect, c)
}

// planRetryLocked decides when the next dial may begin after c's, which has failed. The pause
// counts from the beginning of the last dial: one that had no answer has taken long already.
func (s *subchannel) planRetryLocked(c *connection) {
	c.retryAt = time.Now()
	if c.reached().IsZero() || c.unheard {
		c.retryAt = latest(c.retryAt, s.begunAt.Add(pause.Refused(time.Since(s.downSince))))
	}
}

// superviseAnewLocked has superviseDials called when there may be something to do now, as
// something has changed.
func (s *subchannel) superviseAnewLocked() {
	s.superviseTick.stop()
	s.armSuperviseLocked()
}

// armSuperviseLocked has superviseDials called when there may be something to do.
func (s *subchannel) armSuperviseLocked() {
	if s.policy.settings.Load().unsupervised {
		return
	}
	var next time.Time
	for c := range s.all {
		at := s.decisionLocked(c)
		// Nothing reports that a dial has reached the server, and the time for its
		// handshake may be over before the time for the dial.
		if soon := c.dialledAt.Add(patientHandshake); c.phase == phaseDialling && !c.inLine && soon.Before(at) && soon.After(time.Now()) {
			at = soon
		}
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if !next.IsZero() && !s.closed {
		s.armLocked(&s.superviseTick, max(time.Until(next), time.Millisecond), s.superviseDials)
	}
}

// decisionLocked is when something has to be decided about c's dial. It is zero if there
// is nothing to decide.
func (s *subchannel) decisionLocked(c *connection) time.Time {
	switch c.phase {
	case phaseDialling:
		if c.inLine {
			return time.Time{}
		}
		if reached := c.reached(); !reached.IsZero() {
			return s.handshakeDecisionLocked(c, reached)
		}
		if s.state == connectivity.Ready || !s.wanted {
			return time.Now().Add(leastPatience) // see then how far it has come
		}
		if c.longDial && s.countLocked()[phaseDialling]-s.inLineLocked() > 1 {
			return time.Now().Add(reachedWithin) // the side dials decide, unless one has got through
		}
		return s.overdueAtLocked(c)
	case phaseBackoff:
		if s.state == connectivity.TransientFailure && s.wanted {
			return latest(c.retryAt, s.heldUntil)
		}
	case phaseIdle, phaseTrial, phaseReady, phaseObserved, phaseDraining, phaseRetired, phaseHeld:
	}
	return time.Time{}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// superviseDials gives up dials that take too long, and ends backoffs while there
// is demand.
func (s *subchannel) superviseDials() {
	if s.policy.settings.Load().unsupervised || !s.fitToJudgeDials() {
		return
	}
	s.update(func(e *effects) {
		if s.closed {
			return
		}
		s.dropUnreachedLocked(e)
		now := time.Now()
		for c := range s.all {
			at := s.decisionLocked(c)
			if at.IsZero() || at.After(now) {
				continue
			}
			switch {
			case c.phase == phaseBackoff:
				s.useDemandLocked()
				s.resumeOnGRPCLocked(c, e) // and the child hears IDLE
			case !c.reached().IsZero():
				s.handshakeDueLocked(c, e)
			case s.state != connectivity.Ready && s.wanted:
				s.overdueLocked(c, e)
			}
		}
		s.superviseAnewLocked()
	})
}

// retryNow ends a backoff or a hold: the child hears IDLE, and whatever then connects is a
// new SubConn. Beside a late handshake it begins another dial.
func (s *subchannel) retryNow() {
	s.update(func(e *effects) {
		if s.closed || s.state != connectivity.TransientFailure {
			return
		}
		if s.allLateLocked() {
			s.dialBesideLocked(e)
		}
		s.heldUntil = time.Time{}
		for c := range s.all {
			if c.phase == phaseBackoff || c.phase == phaseHeld {
				s.held.stop()
				s.resumeOnGRPCLocked(c, e)
			}
		}
	})
}

// reached is when this dial of c got through to the server; zero if it has not.
func (c *connection) reached() time.Time {
	if at := c.tap.Reached(); !at.IsZero() && !at.Before(c.dialledAt) {
		return at
	}
	return time.Time{}
}

// connectPatience is how long a dial is tried before another is begun, and how long
// it is tried with all that are begun beside it.
func (s *subchannel) connectPatience() (each, all time.Duration) {
	known := s.policy.channel.memory.recall(s.addr())
	all = firstConnect
	if known.connect > 0 {
		all = max(leastPatience, connectFactor*known.connect)
	}
	return min(all, firstConnect), min(all<<connectDoublings(known), longestConnect)
}

// connectDoublings is how many times the time for a dial is doubled.
func connectDoublings(known learned) int {
	switch tries := known.unanswered; {
	case known.connect == 0:
		return min(tries, 5)
	case tries < briefOutage:
		return 0
	default:
		return min(2+tries-briefOutage, 5)
	}
}

// overdueAtLocked is when c has been tried for long enough.
func (s *subchannel) overdueAtLocked(c *connection) time.Time {
	each, all := s.connectPatience()
	first := s.longDialLocked()
	if all == each || first == nil {
		return c.dialledAt.Add(max(each, time.Duration(boolToInt(all > each))*c.spread))
	}
	next, last := s.begunAt.Add(max(each, c.spread)), first.dialledAt.Add(all)
	if s.inLineLocked() > 0 { // the next side dial waits for the budget
		return last
	}
	if last.Before(next) {
		return latest(last, s.begunAt.Add(leastPatience))
	}
	return next
}

// longDialLocked is the long dial, nil if there is none.
func (s *subchannel) longDialLocked() *connection {
	for c := range s.all {
		if c.phase == phaseDialling && c.longDial {
			return c
		}
	}
	return nil
}

// overdueLocked is told that c has got no answer for too long. It begins another dial
// beside c or in its place. When that has gone on for long enough it gives all of them up.
func (s *subchannel) overdueLocked(c *connection, e *effects) {
	first := s.longDialLocked()
	if first == nil {
		first = c
	}
	if _, all := s.connectPatience(); time.Since(first.dialledAt) >= all {
		s.giveUpDialLocked(c, e)
		if first != c && first.reached().IsZero() {
			s.giveUpDialLocked(first, e)
		}
		if s.countLocked()[phaseDialling] == 0 {
			s.policy.channel.memory.note(s.addr(), func(l *learned) { l.noteFailedDial(&l.unanswered) })
		}
		return
	}
	if first == c {
		c.longDial = true
	} else {
		s.giveUpDialLocked(c, e)
	}
	if first.reached().IsZero() { // otherwise its handshake is under way
		e.dial(1)
	}
}

// giveUpDialLocked ends a dial that gets no answer. If it was the last, the child hears
// that it failed, and that it may connect again.
func (s *subchannel) giveUpDialLocked(c *connection, e *effects) {
	took := time.Since(c.dialledAt)
	err := fmt.Errorf("scale: dialling %s: no answer within %v", s.addr(), took.Round(time.Millisecond))
	s.lastErr = err
	s.stats.failed++
	s.dialFails++
	s.event(EventDialFailed, c, took, err.Error())
	c.givenUp = err
	s.leaveLineLocked(err, e)
	s.resumeOnGRPCLocked(c, e)
}

// dropUnreachedLocked ends the long dial and the side dials that have not reached the server
// when another of them has: the server would work for nobody.
func (s *subchannel) dropUnreachedLocked(e *effects) {
	through := false
	for c := range s.all {
		through = through || c.phase == phaseDialling && (c.longDial || c.sideDial) && !c.reached().IsZero()
	}
	for c := range s.all {
		if through && c.phase == phaseDialling && (c.longDial || c.sideDial) && c.reached().IsZero() {
			s.retireLocked(c, e)
		}
	}
}

// dropDialsLocked ends the long dial and the side dials, as c has come to a result. If c
// failed, those that have reached the server go on. If c is READY, so is what was dialled
// beside a late handshake ended.
func (s *subchannel) dropDialsLocked(c *connection, e *effects) {
	if c.phase == phaseReady {
		s.dropBesideLocked(c, e)
	}
	for other := range s.all {
		if other == c || other.phase != phaseDialling || !other.longDial && !other.sideDial {
			continue
		}
		if c.phase == phaseReady || other.reached().IsZero() {
			s.retireLocked(other, e)
		}
	}
}
