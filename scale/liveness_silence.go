package scale

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/balancer"

	"github.com/davidwartell/go-grpcpool/internal/told"
)

// A connection that answers neither a probe nor the question to its HTTP/2 in time is
// silent, which does not mean that it is dead: the server may be stopped for a moment (a
// garbage collection, a throttled container, a virtual machine that is moved). So it keeps
// its calls. New ones avoid it, a successor is dialled, and the inquiry goes on:
//
//   - If anything is answered, it takes new calls again at once, and the successor is
//     dropped.
//   - If somebody else has answered what was sent later (the successor on its trial, or
//     another connection to the same address) and the silent connection does not within
//     a graceShare of its patience more, it is the connection that is dead, and it is
//     ejected. This does not count if the process itself ran late.
//   - If nobody answers, it is ejected when it has been silent for silentTimeouts probe
//     timeouts.
//   - If calls wait, no connection of the subchannel has a call to lose, and there are other
//     addresses, it is ejected at once. Then the child policy can go on to another address,
//     which pick_first does not while the subchannel is READY. While nobody waits, the
//     connection is kept: thousands of idle clients must not dial anew because a server has
//     stopped for a moment. So it is if there is no other address: a dial on a dead network
//     fails earlier than the connection is given up.
//
// Only one successor is dialled at a time, however many connections of an address are
// silent: if it is as silent as they, further ones would be no help to a server that is
// stopped, and work for it when it goes on. If it answers, that counts against all of them.
const (
	silentTimeouts = 2
	graceShare     = 1.0 / 4
	silentLooks    = 8 // at least so many in the time of a patience

	whySilent = "no answer to a probe, nor from HTTP/2"
)

// provisional reports whether a connection is replaced for want of an answer, which it may
// give yet.
func (r *replacement) provisional() bool { return r.why == whyStuck || r.why == whySilent }

// fallSilent keeps new calls off the connection, and has a successor dialled.
func (i *inquiry) fallSilent() {
	c := i.conn
	s := c.sub
	s.update(func(e *effects) {
		if s.closed || c.phase != phaseReady {
			return
		}
		i.silent = true
		e.serve = true // a quiet connection may take the calls that have waited for c
		c.doubtLocked(doubtSilent)
		if c.nudge == nil {
			c.nudge = make(chan struct{}, 1)
		}
		i.nudged = c.nudge
		s.planLocked(c, time.Now(), whySilent)
		s.armReplaceLocked()
	})
}

// endSilence is called when something was answered.
func (i *inquiry) endSilence() {
	if !i.silent {
		return
	}
	c := i.conn
	i.silent, i.nudged = false, nil
	c.sub.update(func(e *effects) {
		if !i.ranLate {
			c.lateBy = c.now() - i.since
		}
		c.acquitLocked(e)
	})
}

// acquitLocked has c, which was silent and has answered, take calls again. Its successor is
// dropped, unless c is to be replaced for another reason.
func (c *connection) acquitLocked(e *effects) {
	s := c.sub
	c.trustLocked(e)
	if s.closed || c.phase != phaseReady {
		return
	}
	dropped := c.replace.why == whySilent
	if dropped {
		c.replace = replacement{}
		s.planByAgeLocked(c)
	}
	for successor := range s.all {
		switch {
		case successor.predecessor != c:
		case dropped:
			successor.predecessor = nil
			s.retireLocked(successor, e)
		case successor.passed && successor.phase == phaseTrial:
			s.putToUseLocked(successor)
			s.takeOverLocked(successor, e)
		}
	}
	s.armReplaceLocked()
}

// outdone reports whether somebody else has answered what was sent to the same server when
// c had been asked for half of its patience.
func (i *inquiry) outdone() bool {
	c := i.conn
	s := c.sub
	asked := c.made.Add(i.since + i.patience/2)
	s.mu.Lock()
	defer s.mu.Unlock()
	for other := range s.all {
		if other != c && other.hasAnswered.Load() && other.provedAt().After(asked) && (other.predecessor == c || c.sharesAddress(other)) {
			return true
		}
	}
	return false
}

// provedAt is the latest time at which c is known to have been alive.
func (c *connection) provedAt() time.Time { return c.made.Add(time.Duration(c.aliveAt.Load())) }

// sharesAddress reports whether both are known to be connected to the same address.
func (c *connection) sharesAddress(other *connection) bool {
	a, b := c.to.Load(), other.to.Load()
	return a != nil && b != nil && sameAddress(*a, *b)
}

// verdictAt is when a silent connection is to be ejected, as things stand.
func (i *inquiry) verdictAt() time.Duration {
	at := i.since + i.patience + silentTimeouts*i.conn.sub.policy.settings.Load().probeTimeout
	if i.outdoneAt >= 0 && !i.ranLate { // a process that ran late may have the answer and not know it yet
		at = min(at, max(i.outdoneAt, i.since+i.patience)+scaled(i.patience, graceShare))
	}
	if i.silent && i.conn.sub.hasNothingToLose() {
		at = 0
	}
	return max(at, i.since+i.patience)
}

// hasNothingToLose reports whether calls wait that another address can serve, while every
// connection of s is silent and none has a call.
func (s *subchannel) hasNothingToLose() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue.length > 0 && s.policy.elsewhere.Load() &&
		!slices.ContainsFunc(*s.ready.Load(), func(c *connection) bool { return c.doubt != doubtSilent || c.hasCallsLocked() })
}

// hasCallsLocked reports whether c has a stream that is neither a probe's nor a health
// watch's.
func (c *connection) hasCallsLocked() bool {
	return c.inFlight() > int64(boolToInt(c.probing.Load())+boolToInt(c.watched))
}

// lookAround looks whether somebody else has answered.
func (i *inquiry) lookAround() {
	if i.outdoneAt < 0 && i.question != nil && i.outdone() {
		i.outdoneAt = i.conn.now()
	}
}

// convict ejects the connection: it is taken out of use, and the RPCs on it end with the
// reason. Another connection is dialled if necessary. Calls that wait are told as well, if
// nobody has answered and they have nothing to wait for. With several addresses they pick
// again when the child has heard of it.
func (i *inquiry) convict() {
	c := i.conn
	s := c.sub
	others := ""
	if i.outdoneAt >= 0 {
		others = ", while another connection was answered"
	}
	why := fmt.Errorf("scale: connection to %s "+told.Ejected+" within %v, nor from its HTTP/2%s (last byte heard %v ago, limit %d, %d streams in flight)",
		s.addr(), (c.now() - i.since).Round(time.Millisecond), others, (c.now() - c.heardAt()).Round(time.Millisecond), c.tap.Limit(), c.inFlight())
	s.update(func(e *effects) {
		if s.closed || c.phase != phaseReady {
			return
		}
		if i.outdoneAt < 0 && len(*s.ready.Load()) == 1 { // the last of those that are silent together
			s.policy.channel.memory.note(s.addr(), func(l *learned) { l.ejected++ })
			if s.countLocked()[phaseTrial] == 0 && !s.policy.elsewhere.Load() {
				s.failWaitingLocked(why)
			}
		}
		s.ejectLocked(c, why, e)
	})
}

// ejectLocked takes c out of use, ends the RPCs on it with the error why, and has another
// connection dialled if necessary.
func (s *subchannel) ejectLocked(c *connection, why error, e *effects) {
	s.ejectedSinceReady = true // first: it bounds growth
	s.drainLocked(c, e)
	s.stats.ejected++
	s.lastErr = why
	s.event(EventEjected, c, time.Since(c.readyAt), why.Error())
	e.kill = append(e.kill, killing{c, why})
}

// errElsewhere is returned for a call that may have a better chance on another subchannel.
var errElsewhere = fmt.Errorf("scale: every connection of the subchannel is silent: %w", balancer.ErrNoSubConnAvailable)

// mostPicks is how many picks of the child policy a call gets that find only silent
// connections. On the last one it waits there.
const mostPicks = 8

// silent reports whether every connection of s is silent.
func (s *subchannel) silent() bool {
	for _, c := range *s.ready.Load() {
		if c.streams.Load()&doubtBit == 0 {
			return false
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ready := *s.ready.Load()
	for _, c := range ready {
		if c.doubt != doubtSilent {
			return false
		}
	}
	return len(ready) > 0
}
