package scale

import (
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/connectivity"
)

const (
	// Growth may start dialBurst dials at once and one more every dialEvery.
	dialBurst = 16
	dialEvery = 50 * time.Millisecond

	// shrinkLooks is how often a connection is looked at in the time after which
	// it is closed when it was never found in use.
	shrinkLooks = 4
)

// growLocked dials connections for the calls that have no stream: as many as they need,
// all at once, unless dials fail, connections do not last, or too many were dialled
// lately. What holds it back makes it look again when it is over.
func (s *subchannel) growLocked(e *effects) {
	if s.closed || s.state != connectivity.Ready && s.state != connectivity.Connecting {
		return
	}
	demand := s.demandLocked()
	if demand <= 0 {
		return
	}
	if ready := *s.ready.Load(); len(s.suspects.unsuspected(ready)) < len(ready) {
		return // they may well go on, and take the calls then
	}
	want := s.missingLocked(demand)
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
		s.event(EventGrew, nil, 0, fmt.Sprintf("%d more for %d calls", granted, demand))
	}
	e.dial(granted)
}

// missingLocked is how many connections demand needs beside those that are being dialled,
// as far as there may be more.
func (s *subchannel) missingLocked(demand int64) int {
	n := s.countLocked()
	if n[phaseBackoff]+n[phaseHeld] > 0 {
		return 0
	}
	each := s.streamsEachLocked()
	if each <= 0 { // a server that allows none now will hardly allow some elsewhere
		return 0
	}
	want := int((demand+each-1)/each) - n[phaseDialling]
	return min(want, s.policy.settings.Load().maxConnections-n[phaseReady]-n[phaseTrial]-n[phaseDialling])
}

// grow looks whether more connections are needed.
func (s *subchannel) grow() { s.update(s.growLocked) }

// growCold does so before the first connection is READY, with the calls that wait
// for that. The first connection is enough for what a remembered limit says.
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
		if soft := c.softLimit.Load(); soft < c.callLimit.Load() { // else the rest of them waits
			exceeding += c.inFlight() - soft
		}
	}
	return demand + max(exceeding, 0)
}

// streamsEachLocked is how many streams a new connection will take, going by those
// that are there, or without one by the last limit of the address, unless the
// address gives trouble. It is 0 if nothing is known.
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

// shrink closes the connections, but for the oldest, that had no stream in the
// last shrinkLooks looks. A call that has picked one has a stream on it, so none
// is in its way.
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

// randomUpTo is a random part of d. It spreads clients out, and secures nothing.
func randomUpTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d) //nolint:gosec // see above
}

// randomShare is between least and least plus spread.
func randomShare(least, spread float64) float64 {
	return least + spread*rand.Float64() //nolint:gosec // see above
}

// scaled is share of d.
func scaled(d time.Duration, share float64) time.Duration {
	return time.Duration(float64(d) * share)
}

// bucket is a token bucket of dialBurst tokens, refilled one every dialEvery. It
// begins full.
type bucket struct {
	spent int       // tokens that are not there
	at    time.Time // when spent was right
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

// untilNext is the time until there is a token more than now.
func (b *bucket) untilNext(now time.Time) time.Duration {
	return b.at.Add(dialEvery).Sub(now)
}
