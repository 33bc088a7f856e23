package shared

import (
	"math"
	"time"
)

// never is a time that the watchdog does not wait for.
const never = time.Duration(math.MaxInt64)

// idleness is what the watchdog remembers of a channel without leases.
type idleness struct {
	seen  uint64        // the channel's tally then
	since time.Duration // on the pool's clock, when the watchdog first saw it
}

// runWatchdog lets signs of life expire, tests the channel while leases are out, closes
// it when idle, and reports leases that are out too long. While leases are out, or may
// be taken without an attempt, it looks every tickInterval. Otherwise it sleeps until
// something is due, or until an attempt wakes it.
func (p *Pool) runWatchdog() {
	defer p.finished()
	timer := time.NewTimer(never)
	defer timer.Stop()
	last := p.now()
	for {
		now := p.now()
		timer.Reset(p.check(now, last))
		last = now
		select {
		case <-p.ctx.Done():
			return
		case <-p.wake:
		case <-timer.C:
		}
	}
}

// wakeWatchdog makes the watchdog look now.
func (p *Pool) wakeWatchdog() {
	select {
	case p.wake <- struct{}{}:
	default: // it is about to look anyway
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
	seen := c.tally.Load()
	if seen&leases == 0 {
		next := p.checkIdle(c, seen, now)
		if expired || doubted || c.health.Load() == proven {
			// A lease may be taken without waking the watchdog: after an expiry, by a
			// Get that had read the health before it.
			next = min(next, tickInterval)
		}
		return next
	}
	if silent >= p.cfg.testInterval || doubted {
		if pause := p.renewInBackground(); pause > 0 {
			return min(pause, tickInterval)
		}
	}
	return tickInterval
}

// checkIdle closes c when it has had no lease for the idle timeout.
func (p *Pool) checkIdle(c *channel, seen uint64, now time.Duration) time.Duration {
	if seen != c.idle.seen { // leases have come and gone
		c.idle = idleness{seen: seen, since: now}
	}
	if p.cfg.idleTimeout <= 0 {
		return never
	}
	if left := c.idle.since + p.cfg.idleTimeout - now; left > 0 {
		return left
	}
	if !p.closeIdle(c, seen) {
		return tickInterval // a lease was taken just now
	}
	return never
}

func (p *Pool) closeIdle(c *channel, seen uint64) bool {
	p.mu.Lock()
	closed := c.retireIfStill(seen)
	if closed {
		p.current.CompareAndSwap(c, nil) // another may have replaced it
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
