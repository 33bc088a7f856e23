package scale

import (
	"time"

	"github.com/davidwartell/go-grpcpool/internal/answer"
	"github.com/davidwartell/go-grpcpool/internal/jitter"
	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// Some servers end every connection at a certain age. That age is learned from
// connections that were ended gracefully, and later ones are replaced before it.
//
// A server also sends GOAWAY when it is restarted, and two restarts look like an age
// limit. Connections that are replaced in time would never show that they could have
// lived on. So now and then a connection that was replaced by a learned age is not closed
// but observed. It takes no calls, and either the server ends it at its age, or it
// outlives that, and the age is forgotten. The first connection is observed, then the
// second, fourth, eighth and every sixteenth since the server last showed its limit.
// Where a connection cannot be observed, mostUnseen replacements are enough to forget the
// age.
const (
	byAge = "age"

	// A server that ends connections by their age spreads the ends out, gRPC's own
	// by a tenth either way. A connection is replaced when it is between ageShare
	// and a little more of the age that was seen: before the earliest end. When it
	// has reached ageOutlived times the age, the latest end is past.
	ageShare    = 0.7
	ageSpread   = 0.1
	ageOutlived = 1.4

	// A configured age is kept to within ageJitter, so that connections that were
	// made together do not end together.
	ageJitter = 0.1

	// An age limit is learned from two connections in a row, one after the other,
	// that were ended at the same age but for ageTolerance, and lasted for leastAge.
	ageTolerance = 0.25
	leastAge     = 1500 * time.Millisecond

	mostUnseen = 32
)

// lifetime is what is known of the age at which a server ends connections.
type lifetime struct {
	age     time.Duration // 0: not known
	lastAge time.Duration // of the connection that it ended last
	endedAt time.Time     // when that was

	shown  int // how often the server has ended a connection at that age since it was learned
	unseen int // connections replaced before it since then
}

// learn is told that the server ended a connection, READY since the given time, at the
// given age. It reports whether the age limit is known now.
func (l *lifetime) learn(age time.Duration, since, now time.Time) bool {
	previous, follows := l.lastAge, since.After(l.endedAt)
	l.lastAge, l.endedAt = age, now
	lower, higher := min(age, previous), max(age, previous)
	if !follows || lower < scaled(higher, 1-ageTolerance) {
		return false
	}
	l.age, l.shown, l.unseen = lower, 0, 0
	return true
}

// show is told that the server ended an observed connection.
func (l *lifetime) show(age time.Duration) {
	if l.age > 0 {
		l.age += (age - l.age) / 4
		l.shown++
		l.unseen = 0
	}
}

// forget is told that there is no such age.
func (l *lifetime) forget() { l.age, l.lastAge, l.shown, l.unseen = 0, 0, 0, 0 }

// replaced is told that a connection was replaced before the age, and reports whether
// to observe it.
func (l *lifetime) replaced() (observe bool) {
	l.unseen++
	return l.unseen >= 1<<min(l.shown, 4)
}

// planByAgeLocked has c, which has just become READY, replaced before its time.
func (s *subchannel) planByAgeLocked(c *connection) {
	age := s.policy.settings.Load().maxAge
	switch {
	case age < 0:
		return
	case age > 0:
		age = scaled(age, jitter.Share(1-ageJitter, 2*ageJitter))
	default:
		age = scaled(s.policy.channel.memory.recall(s.addr()).lifetime.age, jitter.Share(ageShare, ageSpread))
	}
	if age > 0 {
		s.planLocked(c, c.readyAt.Add(age), byAge)
	}
}

// learnAgeLocked is told that the server ended c gracefully.
func (s *subchannel) learnAgeLocked(c *connection) {
	if c.readyAt.IsZero() {
		return
	}
	age := time.Since(c.readyAt)
	if s.policy.settings.Load().maxAge != 0 || age < leastAge {
		return
	}
	learnt := false
	s.policy.channel.memory.note(s.addr(), func(l *learned) { learnt = l.lifetime.learn(age, c.readyAt, time.Now()) })
	if !learnt {
		return
	}
	for _, other := range *s.ready.Load() {
		s.planByAgeLocked(other)
	}
	s.armReplaceLocked()
}

// observeLocked keeps c, which was replaced, to see whether the server ends it. It is
// false if c is to be closed.
func (s *subchannel) observeLocked(c *connection, e *effects) bool {
	if c.replace.why != byAge || s.policy.settings.Load().maxAge != 0 {
		return false
	}
	observe, age := false, time.Duration(0)
	s.policy.channel.memory.note(s.addr(), func(l *learned) {
		observe, age = l.lifetime.replaced(), l.lifetime.age
		if l.lifetime.unseen > mostUnseen {
			l.lifetime.forget()
			observe = false
		}
	})
	if !observe || age == 0 || s.observed != nil || s.produced { // a producer of the child's moves when its connection is closed
		return false
	}
	c.moveLocked(phaseObserved)
	c.takeOut()
	s.observed = c
	s.changePrimaryLocked(e)
	s.observeTick.stop()
	s.armLocked(&s.observeTick, time.Until(c.readyAt.Add(scaled(age, ageOutlived))), func() { s.outlived(c) })
	return true
}

// observedEndLocked is told of the GOAWAY of c, which is observed: what was waited for.
func (s *subchannel) observedEndLocked(c *connection, g tap.GoAway, e *effects) {
	if g.Code == 0 {
		age := time.Since(c.readyAt)
		s.policy.channel.memory.note(s.addr(), func(l *learned) { l.lifetime.show(age) })
	}
	s.stopObservingLocked(c, e)
}

func (s *subchannel) stopObservingLocked(c *connection, e *effects) {
	s.observed = nil
	s.observeTick.stop()
	s.retireLocked(c, e)
}

// outlived ends the observation of c, which has reached an age that it should not. If
// it is still of use the age was none, and nothing is replaced by it any more.
func (s *subchannel) outlived(c *connection) {
	set := s.policy.settings.Load()
	alive := set.probeInterval <= 0
	if !alive {
		got, said := c.examine(mostPatience * set.probeTimeout)
		alive = said != nil || got.Kind != answer.None && got.Kind != answer.Unsent
	}
	s.update(func(e *effects) {
		if s.closed || c.phase != phaseObserved {
			return
		}
		s.stopObservingLocked(c, e)
		if !alive || s.policy.settings.Load().maxAge != 0 {
			return
		}
		s.policy.channel.memory.note(s.addr(), func(l *learned) { l.lifetime.forget() })
		for _, other := range *s.ready.Load() {
			if other.replace.why == byAge && !other.replace.successor {
				other.replace = replacement{}
			}
		}
		s.armReplaceLocked()
	})
}
