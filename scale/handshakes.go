package scale

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"

	"github.com/davidwartell/go-grpcpool/internal/jitter"
)

// What follows when a dial has reached the server, and the server does not finish the
// handshakes, of TLS and of HTTP/2 (RFC 9113, section 3.4), within patientHandshake.
//
// If the server's kernel has not acknowledged what was sent, the path is dead: the dial is
// given up, and the patience with the next one is doubled.
//
// If it has, or if that cannot be known, the server is alive and busy: after an outage
// thousands of clients shake hands at once. A dial that begins anew then goes to the end
// of the queue, and the server works for nobody. So the handshake is late, and goes on for
// as long as gRPC lets it, 20 seconds. But callers that do not wait until the channel is
// ready are told: the child hears TRANSIENT_FAILURE. If the handshake succeeds after that,
// the child hears the way back, IDLE, CONNECTING and READY, in one go.
//
// Perhaps the server never answers: it hangs, or a balancer has accepted for one that is
// gone. So another dial begins beside the late one, no sooner than besideAfter, or it would
// take the place of another client that waits; each further one twice as late. Of a
// subchannel with several addresses another one is dialled at once. An older handshake is
// given up only for a third.
const (
	patientHandshake = 2500 * time.Millisecond
	besideAfter      = 10 * time.Second        // from when the server was reached
	besideSpread     = 2500 * time.Millisecond // on top of it
	acknowledgedSoon = 500 * time.Millisecond
)

// handshakePatience is how long callers wait for a handshake. Where the last one took long,
// they wait longer, and after one that was late, twice as long: a pool that gives a channel
// up then, and makes another, would otherwise never get through to a busy server. What was
// learned ten minutes ago does not count, see slowLasts.
func (s *subchannel) handshakePatience() time.Duration {
	known := s.policy.channel.memory.recall(s.addr())
	patience := max(patientHandshake, connectFactor*known.connect, connectFactor*known.handshake) << min(known.timeouts, mostDoublings)
	return min(patience, besideAfter)
}

// handshakeDecisionLocked is when something has to be decided about the handshake of c.
func (s *subchannel) handshakeDecisionLocked(c *connection, reached time.Time) time.Time {
	switch {
	case c.unheard: // its end follows
		return time.Time{}
	case !c.late:
		return reached.Add(c.patience)
	case s.besideIsDueLocked():
		return s.besideAt
	default:
		return time.Time{}
	}
}

// besideIsDueLocked reports whether another dial may begin at besideAt: calls need a
// connection, and every dial is late.
func (s *subchannel) besideIsDueLocked() bool {
	return s.wanted && s.state != connectivity.Ready && s.allLateLocked()
}

// handshakeDueLocked is told that the time for the handshake of c is over, or that another
// dial may begin beside it.
func (s *subchannel) handshakeDueLocked(c *connection, e *effects) {
	if !c.late {
		if !c.acknowledged() {
			s.giveUpHandshakeLocked(c, e)
			return
		}
		s.becomeLateLocked(c, e)
	}
	if s.besideIsDueLocked() && !time.Now().Before(s.besideAt) {
		s.dialBesideLocked(e)
	}
}

// acknowledged reports whether the server's kernel takes what is sent to it, as far as that
// can be known. What was sent a moment ago may not be acknowledged yet.
func (c *connection) acknowledged() bool {
	p, known := c.tap.Progress()
	return !known || p.Left == 0 || p.LastAck < max(acknowledgedSoon, 2*p.RoundTrip)
}

// dialBesideLocked begins another dial beside the late ones.
func (s *subchannel) dialBesideLocked(e *effects) {
	s.dropThirdLocked(e)
	s.besides++
	e.dial(1)
}

// becomeLateLocked notes that c is late, and has the child told if no other dial is under
// way.
func (s *subchannel) becomeLateLocked(c *connection, e *effects) {
	c.late = true
	s.noteTimeoutLocked(c)
	s.leaveLineLocked(nil, e)
	s.besideAt = c.reached().Add(besideAfter<<min(s.besides, mostDoublings) + jitter.UpTo(besideSpread))
	if s.besides < len(*s.addrs.Load())-1 {
		s.besideAt = time.Now()
	}
	s.lastErr = s.lateError(c)
	if s.state == connectivity.Connecting && s.allLateLocked() {
		e.run = append(e.run, func() { s.runOnGRPC(s.tellLateLocked) })
	}
}

// lateError says that the handshake of c is late.
func (s *subchannel) lateError(c *connection) error {
	return s.explain(errors.New(c.waitedFor() + "; still waiting for it"))
}

// waitedFor says what the server of c, which has been reached, has not done. Package reason
// knows the words.
func (c *connection) waitedFor() string {
	missing := "finish the handshake"
	if c.tap.Attached() {
		missing = "begin HTTP/2 (no SETTINGS)"
	}
	return fmt.Sprintf("%s accepted the connection and did not %s within %v", c.sub.addr(), missing, time.Since(c.reached()).Round(time.Millisecond))
}

// giveUpHandshakeLocked ends the connection that c is being made on. gRPC reports
// that the dial failed.
func (s *subchannel) giveUpHandshakeLocked(c *connection, e *effects) {
	why := errors.New("scale: " + c.waitedFor())
	s.noteTimeoutLocked(c)
	c.unheard = true
	e.kill = append(e.kill, killing{c, why})
}

// noteTimeoutLocked notes that the handshake of c took too long. Dials that were begun
// together tell the same, once.
func (s *subchannel) noteTimeoutLocked(c *connection) {
	if c.dialledAt.Before(s.timedOutAt) {
		return
	}
	s.timedOutAt = time.Now()
	s.policy.channel.memory.note(s.addr(), func(l *learned) { l.noteFailedDial(&l.timeouts) })
}

// lateLocked is a dial that is late, nil if none is.
func (s *subchannel) lateLocked() *connection {
	for c := range s.all {
		if c.phase == phaseDialling && c.late {
			return c
		}
	}
	return nil
}

// allLateLocked reports whether dials are under way and all of them are late.
func (s *subchannel) allLateLocked() bool {
	late := s.countLateLocked()
	return late > 0 && late == s.countLocked()[phaseDialling]
}

// countLateLocked is how many dials are late.
func (s *subchannel) countLateLocked() (late int) {
	for c := range s.all {
		late += boolToInt(c.phase == phaseDialling && c.late)
	}
	return late
}

// tellLateLocked tells the child that it need not wait, if every dial is late. It runs on
// gRPC's goroutine. As gRPC does after a failure, it has the addresses resolved again.
func (s *subchannel) tellLateLocked(e *effects) {
	if s.closed || s.state != connectivity.Connecting || !s.allLateLocked() {
		return
	}
	s.useDemandLocked()
	s.tellFailureLocked(e, s.lateError(s.lateLocked()))
	e.run = append(e.run, func() { s.policy.cc.ResolveNow(resolver.ResolveNowOptions{}) })
}

// tellFailureLocked tells the child TRANSIENT_FAILURE. If that is what it was told before,
// it hears the way there again, so that it learns the new error.
func (s *subchannel) tellFailureLocked(e *effects, err error) {
	s.wakeLocked()
	if s.state == connectivity.TransientFailure {
		s.tellConnectingLocked(e)
	}
	s.tellLocked(e, connectivity.TransientFailure, err)
}

// tellConnectingLocked tells the child CONNECTING, and the way there.
func (s *subchannel) tellConnectingLocked(e *effects) {
	if s.state == connectivity.TransientFailure {
		s.tellLocked(e, connectivity.Idle, nil)
	}
	if s.state == connectivity.Idle {
		s.tellLocked(e, connectivity.Connecting, nil)
	}
}

// dropThirdLocked gives up the oldest late handshake if another one is late as well, as a
// third dial is about to begin.
func (s *subchannel) dropThirdLocked(e *effects) {
	var oldest *connection
	late := 0
	for c := range s.all {
		if c.phase == phaseDialling && c.late {
			late++
			if oldest == nil || c.dialledAt.Before(oldest.dialledAt) {
				oldest = c
			}
		}
	}
	if late > 1 {
		s.retireLocked(oldest, e)
	}
}

// dropBesideLocked ends what is not needed any more as c is READY: what was dialled beside
// a late handshake, or, if c is that itself, a late handshake.
func (s *subchannel) dropBesideLocked(c *connection, e *effects) {
	for other := range s.all {
		if other.phase != phaseDialling || other == c {
			continue
		}
		if other.beside {
			s.retireLocked(other, e)
		} else if c.beside && other.late {
			s.retireLocked(other, e)
			c.beside = false // it stood beside one
		}
	}
}

// othersFirst returns addrs so that another address comes first than the one at which a
// handshake is late.
func (s *subchannel) othersFirst(addrs []resolver.Address) []resolver.Address {
	if len(addrs) < 2 {
		return addrs
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	late := s.lateLocked()
	if late == nil || late.to.Load() == nil {
		return addrs
	}
	i := slices.IndexFunc(addrs, func(a resolver.Address) bool { return sameAddress(*late.to.Load(), a) }) + 1
	return slices.Concat(addrs[i:], addrs[:i])
}
