package proxy

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// waiter notes when its wait has expired.
type waiter struct {
	wait wait
	at   chan time.Time
}

func (w *waiter) expired() { w.at <- time.Now() }

func newWaiter() *waiter { return &waiter{at: make(chan time.Time, 1)} }

func (w *waiter) isExpired() bool { return len(w.at) > 0 }

func TestAWaitInVainEndsAfterOneToTwoPatiences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ws waits
		for offset := time.Duration(0); offset < 4*patience; offset += patience / 4 {
			time.Sleep(offset) // virtual time; the wait begins anywhere in a round
			begun := time.Now()
			w := newWaiter()
			ws.begin(&w.wait, w)
			if took := (<-w.at).Sub(begun); took < patience || took > 2*patience {
				t.Errorf("it took %v, want %v to %v", took, patience, 2*patience)
			}
			ws.end(&w.wait) // it has expired
		}
		ws.close()
	})
}

func TestAWaitThatEndsInTimeIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ws waits
		first, kept, last := newWaiter(), newWaiter(), newWaiter()
		for _, w := range []*waiter{first, kept, last} {
			ws.begin(&w.wait, w)
		}
		time.Sleep(patience / 2)
		ws.end(&first.wait)
		ws.end(&last.wait)
		ws.end(&last.wait) // again
		time.Sleep(10 * patience)
		synctest.Wait()
		if !kept.isExpired() {
			t.Error("the remaining wait did not expire")
		}
		for _, w := range []*waiter{first, last} {
			if w.isExpired() {
				t.Error("a wait expired that had ended")
			}
		}
		ws.close()
	})
}

func TestTheTickerEndsWithTheWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ws waits
		for range 3 { // and begins again
			w := newWaiter()
			ws.begin(&w.wait, w)
			ws.end(&w.wait)
			time.Sleep(3 * patience)
			synctest.Wait()
			ws.mu.Lock()
			if ws.ticking {
				t.Error("it ticks without waits")
			}
			ws.mu.Unlock()
		}
		ws.close()
	})
}

// Each wait either ends or expires, and nothing is left in the list, in any order.
func TestWaitsAreCountedExactlyUnderConcurrentUse(t *testing.T) {
	var ws waits
	var expired atomic.Int64
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range 200 {
				w := &counted{expiries: &expired, done: make(chan struct{})}
				ws.begin(&w.wait, w)
				if r.IntN(20) == 0 { // expires
					<-w.done
					expired.Add(-1)
					continue
				}
				ws.end(&w.wait)
			}
		})
	}
	callers.Wait()
	ws.close()
	if ws.first != nil || ws.last != nil {
		t.Error("a wait is left")
	}
	if n := expired.Load(); n < 0 { // one that ended at the same moment may have expired too
		t.Errorf("%d waits have not expired", -n)
	}
}

type counted struct {
	wait     wait
	expiries *atomic.Int64
	done     chan struct{}
}

func (c *counted) expired() {
	c.expiries.Add(1)
	close(c.done)
}

func TestAMemoIsBounded(t *testing.T) {
	var m memo[int, *int]
	made := 0
	create := func(key int) *int { made++; return &key }
	for key := range maxMemo {
		if _, kept := m.get(key, create); !kept {
			t.Fatalf("key %d was not kept", key)
		}
	}
	first, _ := m.get(0, create)
	if again, kept := m.get(0, create); again != first || !kept || made != maxMemo {
		t.Errorf("what is known was made again (%d times)", made-maxMemo)
	}
	for range 2 {
		if v, kept := m.get(-1, create); kept || *v != -1 {
			t.Errorf("beyond the bound: %d, kept: %v", *v, kept)
		}
	}
	if len(m.known) != maxMemo {
		t.Errorf("%d are remembered, want %d", len(m.known), maxMemo)
	}
}
