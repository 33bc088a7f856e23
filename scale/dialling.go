package scale

import (
	"fmt"
	"time"

	"google.golang.org/grpc/connectivity"
)

// How dials are supervised. gRPC gives a dial 20 seconds, and after a failure it
// waits for up to two minutes, whether anybody wants the connection or not. Here:
//
// While there is demand (calls that find no connection), dials start at least
// leastPause and at most mostPause apart, so the end of an outage is seen within a
// second. Without demand gRPC's backoff is left alone.
//
// A dial that has not reached the server after leastPause, when the address is known
// to connect faster, is given up while there is demand: the packet that asked for
// the connection was lost, and TCP asks again ever more seldom. Or the network has
// become slow: one in patientEvery such dials in a row is given patientConnect. An
// address that never was reached gets firstConnect.
//
// A server that took the connection has to finish the handshakes, of TLS and of
// HTTP/2 (RFC 9113, section 3.4), within patientHandshake. Every such timeout in a
// row doubles that time for the address, as the server may be slow.
const (
	leastPause = 750 * time.Millisecond
	mostPause  = 900 * time.Millisecond

	firstConnect     = 3 * time.Second
	connectFactor    = 3
	patientEvery     = 16
	patientConnect   = 1750 * time.Millisecond // the end of an outage is seen when TCP asks again
	asksAgain        = time.Second             // after which TCP does, the first time (RFC 6298, section 2)
	patientHandshake = 2500 * time.Millisecond
	mostDoublings    = 3
)

// noteDemand is called for every call that finds no connection.
func (p *policy) noteDemand() {
	if !p.demanded.Load() && !p.demanded.Swap(true) {
		p.tasks.run(p.passDemandOn)
	}
}

// passDemandOn tells every subchannel that it is wanted.
func (p *policy) passDemandOn() {
	for _, s := range p.subchannels() {
		s.mu.Lock()
		s.wanted = true
		s.mu.Unlock()
		s.superviseDials()
	}
}

// useDemandLocked takes note that the demand is being met, or tried to be: only
// calls from now on are demand.
func (s *subchannel) useDemandLocked() {
	s.wanted = false
	s.policy.demanded.Store(false)
}

// beginDialLocked notes that c is about to be told to connect.
func (s *subchannel) beginDialLocked(c *connection) {
	c.phase, c.dialledAt = phaseDialling, time.Now()
	c.pause = leastPause + randomUpTo(mostPause-leastPause)
	s.superviseTick.stop()
	s.armSuperviseLocked()
}

// armSuperviseLocked has superviseDials called when there may be something to do.
func (s *subchannel) armSuperviseLocked() {
	var next time.Time
	for c := range s.all {
		at := s.decisionLocked(c)
		// Nobody tells when a dial has reached the server, and its time for the
		// handshake may be over before that for the dial.
		if look := c.dialledAt.Add(patientHandshake); c.phase == phaseDialling && look.Before(at) && look.After(time.Now()) {
			at = look
		}
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if !next.IsZero() && !s.closed {
		s.setLocked(&s.superviseTick, max(time.Until(next), time.Millisecond), s.superviseDials)
	}
}

// decisionLocked is when something is to be decided about c's dial; zero if
// nothing is.
func (s *subchannel) decisionLocked(c *connection) time.Time {
	switch c.phase {
	case phaseDialling:
		if reached := c.reached(); !reached.IsZero() {
			return reached.Add(s.handshakePatience())
		}
		if s.state == connectivity.Ready || !s.wanted {
			return time.Now().Add(leastPause) // see then how far it has come
		}
		return c.dialledAt.Add(s.connectPatience())
	case phaseBackoff:
		if s.state == connectivity.TransientFailure && s.wanted {
			return latest(c.dialledAt.Add(c.pause), s.heldUntil)
		}
	case phaseIdle, phaseReady, phaseOut, phaseHeld:
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
	if !s.heardDials() {
		return
	}
	var q sequel
	defer q.do(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	now := time.Now()
	for c := range s.all {
		at := s.decisionLocked(c)
		if at.IsZero() || at.After(now) {
			continue
		}
		switch {
		case c.phase == phaseBackoff:
			s.useDemandLocked()
			q.retireLocked(c) // its SHUTDOWN is told to the child as IDLE
		case !c.reached().IsZero():
			s.giveUpHandshakeLocked(c, &q)
		case s.state != connectivity.Ready && s.wanted:
			s.giveUpDialLocked(c, &q)
		}
	}
	s.superviseTick.stop()
	s.armSuperviseLocked()
}

// reached is when this dial of c got through to the server; zero if it has not.
func (c *connection) reached() time.Time {
	if at := c.tap.Reached(); !at.IsZero() && !at.Before(c.dialledAt) {
		return at
	}
	return time.Time{}
}

func (s *subchannel) connectPatience() time.Duration {
	known := s.policy.channel.memory.recall(s.addr())
	switch {
	case known.connect == 0:
		return firstConnect << min(known.timeouts, mostDoublings)
	case (known.unanswered+1)%patientEvery == 0:
		return max(patientConnect, connectFactor*known.connect)
	default:
		return max(leastPause, connectFactor*known.connect)
	}
}

func (s *subchannel) handshakePatience() time.Duration {
	known := s.policy.channel.memory.recall(s.addr())
	return max(patientHandshake, connectFactor*known.handshake) << min(known.timeouts, mostDoublings)
}

// giveUpHandshakeLocked ends the connection that c is being made on. gRPC reports
// that the dial failed.
func (s *subchannel) giveUpHandshakeLocked(c *connection, q *sequel) {
	missing := "finish the handshake"
	if c.tap.Attached() {
		missing = "begin HTTP/2 (no SETTINGS)"
	}
	why := fmt.Errorf("scale: %s accepted the connection and did not %s within %v", s.addr(), missing, time.Since(c.reached()).Round(time.Millisecond))
	s.policy.channel.memory.note(s.addr(), func(l *learned) { l.timeouts++ })
	q.kill, q.killed = append(q.kill, c), why
}

// giveUpDialLocked ends a dial that gets no answer. The child hears that it failed,
// and once it has ended, that it may connect again.
func (s *subchannel) giveUpDialLocked(c *connection, q *sequel) {
	took := time.Since(c.dialledAt)
	err := fmt.Errorf("scale: dialling %s: no answer within %v", s.addr(), took.Round(time.Millisecond))
	s.policy.channel.memory.note(s.addr(), func(l *learned) {
		if l.connect == 0 {
			l.timeouts++
		} else {
			l.unanswered++
		}
	})
	s.lastErr = err
	s.stats.failed++
	s.dialFails++
	s.event(EventDialFailed, c, took, err.Error())
	q.retireLocked(c)
	if s.countLocked()[phaseDialling] > 0 { // it did not decide anything: those who wait for one still do
		return
	}
	s.useDemandLocked()
	s.wakeLocked()
	if s.state != connectivity.TransientFailure {
		s.tellLocked(q, connectivity.TransientFailure, err)
	}
}
