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
	since time.Duration // when the watchdog first saw it, on the pool's clock
}

// watch is the watchdog: it lets signs of life expire, tests the channel while
// leases are out, closes it when idle, and reports leases that are out too long.
// It sleeps for as long as nothing can change by itself: what may begin lending
// again (an attempt) wakes it, and while leases are out or may be taken without
// an attempt it ticks.
func (p *Pool) watch() {
	defer p.finished()
	timer := time.NewTimer(never)
	defer timer.Stop()
	last := p.now()
	for {
		now := p.now()
		timer.Reset(p.inspect(now, last))
		last = now
		select {
		case <-p.ctx.Done():
			return
		case <-p.wake:
		case <-timer.C:
		}
	}
}

// poke makes the watchdog look now.
func (p *Pool) poke() {
	select {
	case p.wake <- struct{}{}:
	default: // it is about to look anyway
	}
}

// inspect looks at everything and says when to look next.
func (p *Pool) inspect(now, last time.Duration) time.Duration {
	next := never
	if c := p.current.Load(); c != nil {
		next = p.inspectChannel(c, now, last)
	}
	if p.cfg.leakAfter > 0 {
		next = min(next, p.reportLeaks(now))
	}
	return next
}

func (p *Pool) inspectChannel(c *channel, now, last time.Duration) time.Duration {
	if c.heard.Swap(false) && last > time.Duration(c.provenAt.Load()) {
		c.prove(last) // it came after the last look; when exactly is not known
	}
	silent := now - time.Duration(c.provenAt.Load())
	doubted := c.doubted.Swap(false)
	expired := silent >= proofLasts && c.health.CompareAndSwap(proven, unproven)
	seen := c.tally.Load()
	if seen&leases == 0 {
		next := p.inspectIdle(c, seen, now)
		if expired || doubted || c.health.Load() == proven {
			// Leases may be taken without waking the watchdog; if it has only
			// just expired, by a Get that was halfway through.
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

// inspectIdle closes c when it has had no lease for the idle timeout.
func (p *Pool) inspectIdle(c *channel, seen uint64, now time.Duration) time.Duration {
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
		p.current.CompareAndSwap(c, nil) // another may have come in its place
	}
	p.mu.Unlock()
	if closed {
		p.counts.idleClosed.Add(1)
	}
	return closed
}

// reportLeaks reports the leases that are out too long and says when the next
// would be.
func (p *Pool) reportLeaks(now time.Duration) time.Duration {
	due, oldest, more := p.borrows.overdue(now - p.cfg.leakAfter)
	for _, b := range due {
		p.counts.leaked.Add(1)
		p.emit(Event{Kind: EventLeaked, Took: now - b.at, Text: "borrowed by " + b.place().String(), borrow: b})
	}
	if !more {
		return never
	}
	return oldest + p.cfg.leakAfter - now
}
