package shared

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
)

// lone is a channel in a pool that does nothing else.
func lone(t *testing.T) (*Pool, *channel) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///nowhere", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	p := New(nil, 0)
	if err := p.install(&channel{pool: p, conn: conn, ledger: &ledger{pool: p}, id: 1, born: p.now()}, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p, p.current.Load()
}

func wantClosed(t *testing.T, c *channel, want bool) {
	t.Helper()
	synctest.Wait()
	if got := c.conn.GetState() == connectivity.Shutdown; got != want {
		t.Errorf("closed: %v, want %v", got, want)
	}
}

func TestARetiredChannelGrantsNoLeaseAndClosesWithItsLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := lone(t)
		c.acquire()
		if !c.retire() {
			t.Error("retire does not see the lease that is out")
		}
		if _, ok := c.acquire(); ok {
			t.Error("a retired channel granted a lease")
		}
		wantClosed(t, c, false)
		c.release()
		wantClosed(t, c, true)
	})
}

func TestAChannelWithoutLeasesIsClosedWhenRetired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := lone(t)
		if c.retire() {
			t.Error("retire sees a lease where there is none")
		}
		wantClosed(t, c, true)
	})
}

func TestTheIdleCloseSparesAChannelThatWasUsedSinceTheLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := lone(t)
		seen := c.tally.Load()
		c.acquire()
		if c.retireIfStill(seen) || c.retireIfStill(c.tally.Load()) {
			t.Error("retired with a lease out")
		}
		c.release()
		if c.retireIfStill(seen) {
			t.Error("retired although a lease has come and gone")
		}
		if !c.retireIfStill(c.tally.Load()) {
			t.Error("not retired although nothing has happened")
		}
		wantClosed(t, c, true)
	})
}

// Many callers take leases while the channel is retired under them: none may
// hold one when it closes, and it closes once.
func TestRetiringRacesWithCallersSafely(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			_, c := lone(t)
			var start, done sync.WaitGroup
			start.Add(1)
			var held atomic.Int64
			for range 8 {
				done.Go(func() {
					start.Wait()
					for {
						if _, ok := c.acquire(); !ok {
							return
						}
						held.Add(1)
						if c.tally.Load()&closing != 0 {
							t.Error("closing under a lease")
						}
						c.release()
					}
				})
			}
			done.Go(func() { start.Wait(); c.retire() })
			start.Done()
			done.Wait()
			wantClosed(t, c, true)
			if n := c.leasesOut(); n != 0 {
				t.Errorf("%d leases out", n)
			}
		})
	}
}

func TestALeaseTakenInTheInstantOfExpiryKeepsTheWatchdogLooking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c := lone(t)
		p.endWatchdog() // no watchdog but this test
		synctest.Wait()
		now := p.now() + proofLasts
		if next := p.checkChannel(c, now, now-tickInterval); next != tickInterval {
			t.Errorf("the watchdog sleeps for %v after an expiry, want one more tick", next)
		}
		now += tickInterval
		if next := p.checkChannel(c, now, now-tickInterval); next != never {
			t.Errorf("the watchdog looks again in %v at a channel that only an attempt can change", next)
		}
	})
}

// Every grant has a lease of its own, whoever asks in whatever order, alone or
// beside others.
func TestNoTwoGrantsShareALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := lone(t)
		var wg sync.WaitGroup
		got := make([][]*lease, 8)
		for i := range got {
			wg.Go(func() {
				for n := range 10_000 {
					tally, _ := c.acquire()
					if n%3 != 0 { // else as for an RPC on the pool, which needs none
						l := c.newLease(tally)
						if l.c != c || l.returned.Load() {
							t.Error("a lease is not new")
						}
						got[i] = append(got[i], l)
					}
					c.release()
				}
			})
		}
		wg.Wait()
		seen := make(map[*lease]bool)
		for _, leases := range got {
			for _, l := range leases {
				if seen[l] {
					t.Fatal("two grants share a lease")
				}
				seen[l] = true
			}
		}
	})
}

// The tally numbers grants modulo 2^34. A batch that has stayed since the numbers
// were last here must not hand its leases out again.
func TestALeaseIsNotHandedOutAgainWhenTheNumbersWrapAround(t *testing.T) {
	c := new(channel)
	tally := uint64(batchSize)<<grantShift | oneLease // the first grant of a batch, alone
	first := c.newLease(tally)
	if again := c.newLease(tally); again == first || again.c != c {
		t.Error("a lease was handed out twice")
	}
}
