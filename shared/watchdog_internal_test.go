package shared

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/davidwartell/go-grpcpool/scale"
)

// watchful is what a channel that watches its connections says.
type watchful struct{ proof atomic.Pointer[time.Time] }

func (*watchful) Snapshot() scale.Channel { return scale.Channel{} }
func (*watchful) RetryNow()               {}
func (*watchful) Supervised() bool        { return true }
func (w *watchful) LastProof() time.Time {
	if at := w.proof.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// watched is a lone channel that watches its connections, in a pool with an idle timeout.
func watched(t *testing.T, idle time.Duration) (*Pool, *channel) {
	t.Helper()
	p, c := lone(t)
	p.cfg.idleTimeout = idle
	c.watcher = &watchful{}
	c.supervised.Store(true)
	p.wakeWatchdog() // as the attempt does that has dialled a channel
	return p, c
}

// asleep reports whether nothing but a grant or a return makes the watchdog look.
func (p *Pool) asleep() bool {
	p.watch.mu.Lock()
	defer p.watch.mu.Unlock()
	return !p.watch.armed && !p.watch.looking
}

func TestTheWatchdogSleepsWhileNoLeaseComesOrGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c := watched(t, 0)
		for _, leases := range []int{0, 1, 2} {
			for range leases {
				c.acquire()
			}
			time.Sleep(2 * time.Second) // virtual
			if !p.asleep() {
				t.Errorf("the watchdog looks at a quiet channel with %d leases out", leases)
			}
			if n := c.leasesOut(); n != leases {
				t.Errorf("%d leases out, want %d", n, leases)
			}
			for range leases {
				c.release()
			}
		}
	})
}

func TestAGrantAndTheLastReturnWakeTheWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c := watched(t, time.Minute)
		c.acquire()
		c.acquire()
		time.Sleep(time.Hour) // virtual: asleep
		c.release()
		synctest.Wait()
		if !p.asleep() {
			t.Error("a return that is not the last has woken the watchdog")
		}
		c.release()
		synctest.Wait()
		if p.asleep() {
			t.Error("the watchdog does not know that the idle time has begun")
		}
		time.Sleep(59 * time.Second)
		c.acquire()
		time.Sleep(10 * time.Second)
		wantClosed(t, c, false)
		c.release()
		time.Sleep(time.Minute - time.Millisecond)
		wantClosed(t, c, false)
		time.Sleep(252 * time.Millisecond)
		wantClosed(t, c, true)
	})
}

// A proof that the channel has taken over expires although the watchdog slept before.
func TestAProofOfTheChannelItselfExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c := watched(t, 0)
		time.Sleep(provedEnough - time.Second) // virtual
		now := time.Now()
		c.watcher.(*watchful).proof.Store(&now)
		if !c.proveByItself() || c.health.Load() != proven {
			t.Error("the channel's own proof does not count")
		}
		time.Sleep(proofLasts + tickInterval)
		if c.health.Load() != unproven || c.proveByItself() || !p.asleep() {
			t.Error("a proof that is too old counts, or the watchdog goes on looking")
		}
	})
}

// What a channel has proved that nobody has used for a while may be the answer to a probe, and
// no reason not to test it.
func TestTheOwnProofOfAnUnusedChannelDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := watched(t, 0)
		counts := func() bool {
			now := time.Now()
			c.watcher.(*watchful).proof.Store(&now)
			return c.proveByItself()
		}
		time.Sleep(provedEnough - time.Second) // virtual
		if !counts() {
			t.Error("the proof of a channel that was used a moment ago does not count")
		}
		time.Sleep(time.Second)
		if counts() {
			t.Error("the proof of an unused channel counts")
		}
		c.acquire()
		time.Sleep(time.Minute)
		if !counts() {
			t.Error("the proof of a channel with a lease does not count")
		}
		c.release()
		time.Sleep(time.Second)
		if !counts() {
			t.Error("the last use was a second ago, not a minute")
		}
	})
}

// Between two looks that find nothing, leases that come and go race with its falling asleep.
func TestNoLeaseIsOverlookedByAWatchdogThatFallsAsleep(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			_, c := watched(t, 100*time.Millisecond)
			time.Sleep(240 * time.Millisecond) // virtual: about to look
			go func() {
				time.Sleep(10 * time.Millisecond)
				if _, ok := c.acquire(); ok {
					c.release()
				}
			}()
			time.Sleep(time.Second)
			wantClosed(t, c, true)
		})
	}
}
