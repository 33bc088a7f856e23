package scale

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/connectivity"
)

const (
	// Growth may start dialBurst dials at once and one more every dialEvery.
	dialBurst = 16
	dialEvery = 50 * time.Millisecond

	// shrinkLooks is how often shrink runs in the time of WithShrinkAfter. A connection
	// that it finds unused so many times in a row is closed.
	shrinkLooks = 4
)

// growLocked dials connections for the calls that have no stream: as many as they need,
// all at once, unless dials fail, connections do not last, or too many were dialled
// lately. It runs again when the obstacle is gone.
func (s *subchannel) growLocked(e *effects) {
	if s.closed || s.state != connectivity.Ready && s.state != connectivity.Connecting {
		return
	}
	demand := s.demandLocked()
	if demand <= 0 {
		return
	}
	if s.wakeLockedFor(demand) {
		s.dispatchLocked(e)
		if demand = s.demandLocked(); demand <= 0 {
			return
		}
	}
	if s.mayServeSoonLocked() {
		return
	}
	want := s.missingLocked(demand - s.heldForSilentLocked(demand))
	if want <= 0 {
		return
	}
	now := time.Now()
	if s.shortLived > 0 && !s.anyUsefulLocked(now) {
		s.armLocked(&s.regrow, max(longEnough, s.heldUntil.Sub(now)), s.grow)
		return
	}
	granted := s.tokens.take(now, want)
	if granted < want {
		s.armLocked(&s.regrow, s.tokens.untilNext(now), s.grow)
	}
	if granted > 0 && s.state == connectivity.Ready {
		s.event(EventGrew, nil, 0, fmt.Sprintf("%d more for %s", granted, countCalls(demand)))
	}
	e.dial(granted)
}

// mayServeSoonLocked reports whether a connection that takes no calls now may soon take those
// that wait: it is being asked for an answer, or it is under suspicion for a moment.
func (s *subchannel) mayServeSoonLocked() bool {
	ready := *s.ready.Load()
	return s.awaitedLocked() || len(s.suspects.unsuspected(ready)) < len(ready)
}

// countCalls is n and the noun.
func countCalls(n int64) string {
	if n == 1 {
		return "1 call"
	}
	return fmt.Sprintf("%d calls", n)
}

// missingLocked is how many further connections demand needs, those that are being dialled
// not counted, within the limit of WithMaxConnections.
func (s *subchannel) missingLocked(demand int64) int {
	n := s.countLocked()
	if n[phaseBackoff]+n[phaseHeld] > 0 {
		return 0
	}
	each := s.streamsEachLocked()
	if each <= 0 { // a server that allows no streams here will hardly allow any on another connection
		return 0
	}
	want := int((demand+each-1)/each) - n[phaseDialling] + s.dialledForSilentLocked()
	return min(want, s.policy.settings.Load().maxConnections-n[phaseReady]-n[phaseTrial]-n[phaseDialling])
}

// growBeyondSoft is told that a call was begun beyond the soft limit of every connection that
// was free.
func (s *subchannel) growBeyondSoft() {
	s.update(func(e *effects) {
		s.calledLocked() // quiet connections have room
		s.growLocked(e)
	})
}

// heldForSilentLocked is how much of the demand waits for silent connections, which may take
// calls again soon, or their successor does: as much as they have room for, and all of it if
// every connection is silent. A further one would then probably be as silent.
func (s *subchannel) heldForSilentLocked(demand int64) (held int64) {
	well := len(*s.ready.Load()) == 0
	for _, c := range *s.ready.Load() {
		if c.doubt == doubtSilent {
			held = min(held+c.roomLocked(), demand)
		} else {
			well = true
		}
	}
	if !well {
		return demand
	}
	return held
}

// dialledForSilentLocked is how many dials are under way for successors of silent
// connections. They are no growth.
func (s *subchannel) dialledForSilentLocked() (n int) {
	for c := range s.all {
		switch {
		case c.phase == phaseReady && c.doubt == doubtSilent && c.replace.successor:
			n++
		case c.phase == phaseTrial && c.predecessor != nil && c.predecessor.doubt == doubtSilent: // its dial is over
			n--
		}
	}
	return max(n, 0)
}

// anySilentLocked reports whether one of the connections is silent.
func (s *subchannel) anySilentLocked() bool {
	return slices.ContainsFunc(*s.ready.Load(), func(c *connection) bool { return c.doubt == doubtSilent })
}

// grow dials more connections if they are needed.
func (s *subchannel) grow() { s.update(s.growLocked) }

// growCold does so before the first connection is READY, for the parked calls that wait
// for it. How many streams a connection will take is known from the address's last limit.
func (s *subchannel) growCold(parked int) {
	s.update(func(e *effects) {
		s.parked = parked
		s.growLocked(e)
	})
}

// demandLocked is how many calls have no stream of their own.
func (s *subchannel) demandLocked() int64 {
	demand := int64(s.queue.length)
	if s.state == connectivity.Connecting {
		return demand + int64(s.parked)
	}
	exceeding := int64(0)
	for _, c := range *s.ready.Load() {
		if soft := c.softLimit.Load(); soft < c.callLimit.Load() { // otherwise calls beyond it wait in the queue
			exceeding += c.inFlight() - soft
		}
	}
	return demand + max(exceeding, 0)
}

// streamsEachLocked is how many streams a new connection will probably take: as many as
// one that is READY, or, if none is, as the last limit of the address says. It is 0 if
// that is not known, or if dials of the address fail or its connections do not last.
func (s *subchannel) streamsEachLocked() (each int64) {
	if s.oldest() != nil {
		return s.eachLocked()
	}
	known := s.policy.channel.memory.recall(s.addr())
	if !known.limited || s.dialFails > 0 || s.shortLived > 0 || s.ejectedSinceReady {
		return 0
	}
	each, _ = s.policy.settings.Load().bounds(known.limit, true)
	return each
}

// armShrinkLocked has shrink called when there are connections that it might close.
func (s *subchannel) armShrinkLocked() {
	after := s.policy.settings.Load().shrinkAfter
	if after <= 0 || s.closed || len(*s.ready.Load()) < 2 {
		s.shrinkTick.stop()
		return
	}
	s.armLocked(&s.shrinkTick, after/shrinkLooks, s.shrink)
}

// shrink closes the connections that it has found unused shrinkLooks times in a row. The
// oldest one stays. No call loses its connection: a call that has picked one has a stream
// on it.
func (s *subchannel) shrink() {
	s.update(func(e *effects) {
		var unused []*connection
		for i, c := range *s.ready.Load() {
			if i == 0 {
				continue
			}
			if c.used.Swap(false) || c.busy() {
				c.quiet = 0
			} else {
				c.quiet++
			}
			if c.quiet >= shrinkLooks && !s.closed && c.takeOutIfUnused() {
				unused = append(unused, c)
			}
		}
		for _, c := range unused {
			s.removeLocked(c, e)
			s.retireLocked(c, e)
			s.stats.shrunk++
			s.event(EventShrank, c, time.Since(c.readyAt), "")
			e.publish = true
		}
		s.armShrinkLocked()
	})
}

// scaled is share of d.
func scaled(d time.Duration, share float64) time.Duration {
	return time.Duration(float64(d) * share)
}

// bucket is a token bucket of dialBurst tokens, refilled one every dialEvery. It
// begins full.
type bucket struct {
	spent int       // tokens that are missing
	at    time.Time // when spent was correct
}

func (b *bucket) take(now time.Time, n int) int {
	refilled := int(min(now.Sub(b.at)/dialEvery, dialBurst)) // bounded first: an int may have 32 bits
	if b.spent = max(b.spent-refilled, 0); b.spent == 0 {
		b.at = now
	} else {
		b.at = b.at.Add(time.Duration(refilled) * dialEvery)
	}
	n = min(n, dialBurst-b.spent)
	b.spent += n
	return n
}

// untilNext is the time until the next token is refilled.
func (b *bucket) untilNext(now time.Time) time.Duration {
	return b.at.Add(dialEvery).Sub(now)
}
