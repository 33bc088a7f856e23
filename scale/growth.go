package scale

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc/connectivity"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

const (
	// A connection that was lost within longEnough, and on which the server never
	// answered a call, was short-lived. After the first in a row the next dial
	// follows at once, after each further one it is held back, as holds says, each
	// time with up to a fifth on top. gRPC itself forgets its backoff when a dial
	// succeeds. While a hold of shortHold or less lasts calls wait; longer ones they
	// are told of, or they would wait for as long as the trouble lasts. A connection that has answered is
	// no trouble however soon it goes: some servers end one after so many calls. One
	// that the server flooded is trouble, whatever came before.
	longEnough = time.Second
	shortHold  = 850 * time.Millisecond

	// Growth may start dialBurst dials at once and one more every dialEvery.
	dialBurst = 16
	dialEvery = 50 * time.Millisecond

	// shrinkLooks is how often a connection is looked at in the time after which
	// it is closed when it was never found in use.
	shrinkLooks = 4
)

// holds makes at most five dials in three seconds of a server that ends every connection
// at once, though some fail before they are connections.
var holds = [...]time.Duration{100 * time.Millisecond, 700 * time.Millisecond, 1600 * time.Millisecond}

// growLocked says how many connections to dial for the calls that have no stream,
// and reserves them in starting: as many as they need, all at once, unless dials
// fail, connections do not last, or too many were dialled lately. What holds it
// back makes it look again when it is over.
func (s *subchannel) growLocked() int {
	if s.closed || s.state != connectivity.Ready && s.state != connectivity.Connecting {
		return 0
	}
	demand := s.demandLocked()
	if demand <= 0 {
		return 0
	}
	if ready := *s.ready.Load(); len(s.suspects.unsuspected(ready)) < len(ready) {
		return 0 // they may well go on, and take the calls then
	}
	n := s.countLocked()
	if n[phaseBackoff]+n[phaseHeld] > 0 {
		return 0
	}
	each := s.streamsEachLocked()
	if each <= 0 { // a server that allows none now will hardly allow some elsewhere
		return 0
	}
	want := int((demand+each-1)/each) - n[phaseDialling]
	want = min(want, s.policy.settings.Load().maxConnections-n[phaseReady]-n[phaseTrial]-n[phaseDialling])
	if want <= 0 {
		return 0
	}
	now := time.Now()
	if s.shortLived > 0 && !s.provedLocked(now) {
		s.armLocked(&s.regrow, max(longEnough, s.heldUntil.Sub(now)), s.grow)
		return 0
	}
	granted := s.tokens.take(now, want)
	if granted < want {
		s.armLocked(&s.regrow, s.tokens.untilNext(now), s.grow)
	}
	if granted > 0 && s.state == connectivity.Ready {
		s.event(EventGrew, nil, 0, fmt.Sprintf("%d more for %d calls", granted, demand))
	}
	s.starting += granted
	return granted
}

// grow looks whether more connections are needed.
func (s *subchannel) grow() {
	s.mu.Lock()
	dials := s.growLocked()
	s.mu.Unlock()
	s.dial(dials)
}

// growCold does so before the first connection is READY, with the calls that wait
// for that. The first connection is enough for what a remembered limit says.
func (s *subchannel) growCold(parked int) {
	s.mu.Lock()
	s.parked = parked
	dials := s.growLocked()
	s.mu.Unlock()
	s.dial(dials)
}

// demandLocked is how many calls have no stream of their own.
func (s *subchannel) demandLocked() int64 {
	demand := int64(s.queue.length)
	if s.state == connectivity.Connecting {
		return demand + int64(s.parked)
	}
	exceeding := int64(0)
	for _, c := range *s.ready.Load() {
		if room := c.softLimit.Load(); room < c.callLimit.Load() { // else the rest of them waits
			exceeding += c.inFlight() - room
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

// retryNow ends a backoff. The SHUTDOWN of the SubConn that sits it out is told to
// the child as IDLE, and whatever then connects is a new one.
func (s *subchannel) retryNow() {
	var q sequel
	defer q.do(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.state != connectivity.TransientFailure {
		return
	}
	for c := range s.all {
		if c.phase == phaseBackoff {
			q.retireLocked(c)
		}
	}
}

// provedLocked reports whether one of the connections has shown that it is of use.
func (s *subchannel) provedLocked(now time.Time) bool {
	return slices.ContainsFunc(*s.ready.Load(), func(c *connection) bool {
		return c.proved.Load() || now.Sub(c.readyAt) >= longEnough
	})
}

// judgeLocked counts the end of c, once, and decides how soon the next dial may
// follow.
func (s *subchannel) judgeLocked(c *connection) {
	if c.judged {
		return
	}
	c.judged = true
	lived := time.Duration(0)
	if !c.readyAt.IsZero() {
		lived = time.Since(c.readyAt)
	}
	s.lastErr = c.reason(lived)
	flooded := errors.Is(c.tap.Cause(), tap.ErrFlood)
	if (lived >= longEnough || c.proved.Load()) && !flooded {
		s.shortLived = 0
	} else {
		s.shortLived++
	}
	s.policy.channel.memory.note(s.addr(), func(l *learned) { l.shortLived, l.judgedAt = s.shortLived, time.Now() })
	if s.shortLived > 1 {
		hold := holds[min(s.shortLived, len(holds)+1)-2]
		hold += randomUpTo(hold / 5)
		s.heldUntil = time.Now().Add(hold)
	}
}

// judgeDialLocked counts c, whose dial has failed, as short-lived if the server ended it
// just before it was READY, or if it got no farther than those before it that were.
func (s *subchannel) judgeDialLocked(c *connection) {
	begun := c.tap.Attached() && time.Since(c.dialledAt) < longEnough
	if begun || s.shortLived > 0 && !c.reached().IsZero() {
		err := s.lastErr // which says more
		s.judgeLocked(c)
		s.lastErr = err
	}
}

// armShrinkLocked sees to it that unused connections are closed.
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
	var unused []*connection
	s.mu.Lock()
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
		c.phase = phaseOut
		s.removeLocked(c)
		s.stats.shrunk++
		s.event(EventShrank, c, time.Since(c.readyAt), "")
	}
	s.armShrinkLocked()
	s.mu.Unlock()
	if len(unused) > 0 {
		s.policy.republish()
	}
	for _, c := range unused {
		c.sc.Shutdown()
	}
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
