package shared

import (
	"errors"
	"net"
	"time"

	"github.com/davidwartell/go-grpcpool/internal/jitter"
	"github.com/davidwartell/go-grpcpool/internal/pause"
)

// When the next attempt may begin, and when it may dial. Package pause decides: a dial that
// did not reach the server cost it nothing, and is soon followed by another. One that did
// reach it is followed after a pause that grows, and so is a channel that fails its test
// soon after it was dialled. Pauses count from the start of a dial, as a dial that is not
// answered takes long by itself.

const (
	// settledAge is how old a channel has to be, when it fails its test, for its dial to
	// count as one that was of use.
	settledAge = 10 * time.Second

	// Between dials that reach the server are leastCostly to mostCostly at least, at random:
	// the first pauses of pause.Costly would allow more than five in three seconds.
	leastCostly = 750 * time.Millisecond
	mostCostly  = 900 * time.Millisecond
)

// costlyPause is the pause after the nth dial in a row that reached the server.
func costlyPause(n int) time.Duration {
	return max(jitter.Between(leastCostly, mostCostly), pause.Costly(n))
}

// noteFailedDial decides when the next dial may begin, after one that began at start and
// failed with err.
func (p *Pool) noteFailedDial(start time.Time, err error) {
	reached := reachedServer(err)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.downSince.IsZero() {
		p.downSince = start
	}
	if reached {
		p.costly++
		p.nextDial = start.Add(costlyPause(p.costly))
	} else {
		p.costly = 0
		p.nextDial = start.Add(pause.Refused(time.Since(p.downSince)))
	}
	p.nextTry = p.nextDial
}

// reachedServer reports whether a dial that failed with err has reached the server. Errors
// of *grpcpool.Factory tell; see grpcpool.ConnectionFactory. Of others it is known only of
// those of the system's own dials: the rest count as dials that did.
func reachedServer(err error) bool {
	var told interface{ ReachedServer() bool }
	if errors.As(err, &told) {
		return told.ReachedServer()
	}
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return false
	}
	return !errors.As(err, new(*net.DNSError))
}

// postponeDial postpones the next attempt if it is too early to dial in place of c, which
// has just failed its test. Otherwise a server that accepts connections and fails at once
// would be dialled in a loop.
func (p *Pool) postponeDial(c *channel) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !c.judged {
		c.judged = true
		if p.now()-c.born >= settledAge {
			p.costly = 0
		} else {
			p.costly++
			p.nextDial = latest(p.nextDial, p.epoch.Add(c.born+costlyPause(p.costly)))
		}
	}
	if !time.Now().Before(p.nextDial) {
		return false
	}
	p.nextTry = p.nextDial
	return true
}

// postponeTry has the next attempt begin after d at the earliest.
func (p *Pool) postponeTry(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nextTry = time.Now().Add(d)
}

// tryNow begins an attempt now, or the pause before it ends.
func (p *Pool) tryNow() {
	p.endPause()
	p.renewInBackground()
}

// endPauses ends the pauses before an attempt and before a dial.
func (p *Pool) endPauses() {
	p.mu.Lock()
	p.nextDial = time.Time{}
	p.mu.Unlock()
	p.endPause()
}

// endPause ends the pause before an attempt.
func (p *Pool) endPause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nextTry = time.Time{}
	if p.sooner != nil {
		close(p.sooner)
		p.sooner = nil
	}
}

// soonerLocked returns a channel that is closed when a pause before an attempt has ended
// early.
func (p *Pool) soonerLocked() <-chan struct{} {
	if p.sooner == nil {
		p.sooner = make(chan struct{})
	}
	return p.sooner
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
