package shared

import (
	"math"
	"sync"
	"time"

	"google.golang.org/grpc/connectivity"
)

// never is a time that the watchdog does not wait for.
const never = time.Duration(math.MaxInt64)

// idleness is what the watchdog remembers of a channel without leases.
type idleness struct {
	seen  uint64        // the channel's tally then
	since time.Duration // on the pool's clock, when the watchdog first saw it
}

// watchdog lets signs of life expire, tests the channel while leases are out, closes it when
// idle, and reports leases that are out too long. It is a timer, and runs on a goroutine only
// while it looks.
//
// While leases are out, or may be taken without an attempt, it looks every tickInterval.
// Otherwise it sleeps until something is due, or until somebody wakes it. If the channel is
// supervised, it also sleeps while leases are out, when none was granted or returned between
// two looks: the channel then wakes it (channel.stir) with the next grant or the last return.
type watchdog struct {
	mu      sync.Mutex  // guards what follows; innermost, as nothing is called under it
	timer   *time.Timer // nil before it is first needed
	armed   bool        // the timer runs, or has fired and its look has not begun
	looking bool
	again   bool // look once more
	ended   bool

	last time.Duration // when it last looked; owned by the look
}

// wakeWatchdog makes the watchdog look now.
func (p *Pool) wakeWatchdog() {
	w := &p.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.ended:
	case w.looking:
		w.again = true
	default:
		p.armLocked(0)
	}
}

// armLocked has the watchdog look in d, and not later.
func (p *Pool) armLocked(d time.Duration) {
	w := &p.watch
	switch {
	case w.timer == nil:
		w.timer = time.AfterFunc(d, p.look)
	case w.armed && !w.timer.Stop():
		return // it has fired
	default:
		w.timer.Reset(d)
	}
	w.armed = true
}

// endWatchdog ends the watchdog. A look under way goes on, and counts in Pool.live.
func (p *Pool) endWatchdog() {
	w := &p.watch
	w.mu.Lock()
	looks := w.looking || w.armed && !w.timer.Stop() // the look that has begun, or is about to, ends it
	first := !w.ended
	w.ended = true
	w.mu.Unlock()
	if first && !looks {
		p.finished()
	}
}

// look is called by the timer.
func (p *Pool) look() {
	w := &p.watch
	w.mu.Lock()
	w.armed, w.looking = false, true
	for !w.ended {
		w.again = false
		w.mu.Unlock()
		now := p.now()
		next := p.check(now, w.last)
		w.last = now
		w.mu.Lock()
		if !w.again {
			w.looking = false
			if next != never && !w.ended {
				p.armLocked(next)
			}
			break
		}
	}
	w.looking = false
	ended := w.ended
	w.mu.Unlock()
	if ended {
		p.finished()
	}
}

// check looks at everything, and returns in what time to look next. last is when it
// looked before.
func (p *Pool) check(now, last time.Duration) time.Duration {
	next := never
	if c := p.current.Load(); c != nil {
		next = p.checkChannel(c, now, last)
	}
	if p.cfg.leakAfter > 0 {
		next = min(next, p.reportLeaks(now))
	}
	return next
}

func (p *Pool) checkChannel(c *channel, now, last time.Duration) time.Duration {
	if c.heard.Swap(false) && last > time.Duration(c.provenAt.Load()) {
		c.prove(last) // it came after the last look; the exact time is not known
	}
	silent := now - time.Duration(c.provenAt.Load())
	doubted := c.doubted.Swap(false)
	expired := silent >= proofLasts && c.health.CompareAndSwap(proven, unproven)
	if c.askSupervised() {
		return p.checkSupervised(c, now, doubted || c.lost.Load() && !c.onlyCalled())
	}
	seen := c.tally.Load()
	if seen&leases == 0 {
		return p.checkUnused(c, seen, now, expired || doubted)
	}
	if (silent >= p.cfg.testInterval || doubted) && c.health.Load() != unconnected && !c.outageNoticed() {
		if pause := p.renewInBackground(); pause > 0 {
			return min(pause, tickInterval)
		}
	}
	return tickInterval
}

// checkUnused is the rest of checkChannel for a channel that is neither supervised nor lent.
// changed is whether its health has just changed.
func (p *Pool) checkUnused(c *channel, seen uint64, now time.Duration, changed bool) time.Duration {
	next := p.checkIdle(c, seen, now)
	if changed || c.health.Load() == proven || next > tickInterval && !c.rest(seen) {
		// A lease may be taken without waking the watchdog: after an expiry, by a Get
		// that had read the health before it. An RPC needs no health, and wakes it from rest.
		next = min(next, tickInterval)
	}
	return next
}

// checkSupervised is the rest of checkChannel for a supervised channel. doubted is whether
// there is a reason to test it.
func (p *Pool) checkSupervised(c *channel, now time.Duration, doubted bool) time.Duration {
	next, before := never, c.idle.seen
	seen := c.tally.Load()
	if seen&leases == 0 {
		next = p.checkIdle(c, seen, now)
	} else {
		c.idle = idleness{seen: seen &^ resting, since: now}
		if (doubted || c.health.Load() == failed) && !c.outageNoticed() {
			if pause := p.renewInBackground(); pause > 0 {
				next = pause // an attempt that runs wakes the watchdog at its end
			}
		}
	}
	if c.health.Load() == proven {
		next = min(next, max(time.Duration(c.provenAt.Load())+proofLasts-now, time.Millisecond))
	}
	if seen&resting == 0 && (seen != before || !c.rest(seen)) {
		next = min(next, tickInterval)
	}
	return next
}

// onlyCalled reports whether c serves RPCs of the pool and no Get has lately asked for it. They
// notice by themselves that it has lost its connection, and when it has one again: a test
// would only be one more RPC in the program's metrics.
func (c *channel) onlyCalled() bool { return c.called.Load() && !c.pool.askedLately() }

// outageNoticed reports whether RPCs notice by themselves that c has no connection.
func (c *channel) outageNoticed() bool {
	return c.onlyCalled() && c.conn.GetState() != connectivity.Ready
}

// checkIdle closes c when it has had no lease for the idle timeout.
func (p *Pool) checkIdle(c *channel, seen uint64, now time.Duration) time.Duration {
	if seen&^resting != c.idle.seen { // leases have come and gone
		c.idle = idleness{seen: seen &^ resting, since: now}
	}
	if p.cfg.idleTimeout <= 0 {
		return never
	}
	if p.wanted(c) {
		c.idle.since = now
		return p.cfg.idleTimeout
	}
	if left := c.idle.since + p.cfg.idleTimeout - now; left > 0 {
		return left
	}
	if !p.closeIdle(c, seen) {
		return tickInterval // a lease was taken just now
	}
	return never
}

// wanted reports whether callers wait for c, which has no lease out.
func (p *Pool) wanted(c *channel) bool {
	if p.counts.waiting.Load() > 0 {
		return true
	}
	return !c.connected.Load() && p.attempting()
}

func (p *Pool) closeIdle(c *channel, seen uint64) bool {
	p.mu.Lock()
	closed := (c.connected.Load() || p.attempt == nil) && c.retireIfStill(seen)
	if closed {
		if p.current.Load() == c { // another may have replaced it
			p.setCurrentLocked(nil)
		}
	}
	p.mu.Unlock()
	if closed {
		p.counts.idleClosed.Add(1)
	}
	return closed
}

// reportLeaks reports the leases that have been out too long, and returns in what time
// the next may be due.
func (p *Pool) reportLeaks(now time.Duration) time.Duration {
	due, oldest, more := p.borrows.takeOverdue(now - p.cfg.leakAfter)
	for _, b := range due {
		p.counts.leaked.Add(1)
		p.emit(Event{Kind: EventLeaked, Took: now - b.at, Text: "borrowed by " + b.place().String(), Stack: b.stack})
	}
	if !more {
		return never
	}
	return oldest + p.cfg.leakAfter - now
}
