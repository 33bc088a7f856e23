package proxy

import (
	"sync"
	"time"
)

// patience is how long a part of a call is held back for the next, so that both are sent
// together: a request for its end, headers and the first answer for what follows. In a
// unary call these arrive together, and sending them one by one would double the cost of
// the call. Where they do not, the first call of a method is delayed by up to twice this
// time, and the method's shape is remembered.
const patience = 2 * time.Millisecond

// expirer is told when its wait has expired.
type expirer interface {
	// expired is called once, on its own goroutine, if the wait was not ended in time.
	// It may also be called when the wait has just been ended.
	expired()
}

// wait is one wait, from begin to end. It must not be copied or reused.
type wait struct {
	// Guarded by waits.mu.
	who        expirer // nil: it has not begun, or has ended
	since      uint64  // the round in which it began
	prev, next *wait
}

// waits holds all waits. One ticker serves them. A timer for each would cost two system
// calls per call: Go wakes the thread that polls the network whenever a timer is due
// earlier than that thread expects.
type waits struct {
	goroutines sync.WaitGroup // the ticker's, and those of expired

	mu      sync.Mutex // guards what follows; held for moments
	first   *wait      // the oldest
	last    *wait
	round   uint64 // counts ticks
	newest  uint64 // the round in which the last wait began
	ticking bool
	closed  bool
}

// begin begins w: who is told when patience has passed. Undone by end.
func (ws *waits) begin(w *wait, who expirer) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	w.who, w.since, w.prev = who, ws.round, ws.last
	if ws.last == nil {
		ws.first = w
	} else {
		ws.last.next = w
	}
	ws.last, ws.newest = w, ws.round
	if !ws.ticking && !ws.closed {
		ws.ticking = true
		ws.goroutines.Go(ws.tick)
	}
}

// end ends w. It does nothing if w has expired or never began.
func (ws *waits) end(w *wait) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w.who != nil {
		ws.removeLocked(w)
	}
}

func (ws *waits) removeLocked(w *wait) {
	if w.prev == nil {
		ws.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		ws.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.who, w.prev, w.next = nil, nil, nil
}

// tick runs while there are waits.
func (ws *waits) tick() {
	t := time.NewTicker(patience)
	defer t.Stop()
	for range t.C {
		late, goOn := ws.turn()
		for _, who := range late {
			ws.goroutines.Go(who.expired)
		}
		if !goOn {
			return
		}
	}
}

// turn returns the waiters whose time has passed, and whether another round is needed.
func (ws *waits) turn() (late []expirer, goOn bool) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.round++
	for w := ws.first; w != nil && w.since+2 <= ws.round; w = ws.first {
		late = append(late, w.who)
		ws.removeLocked(w)
	}
	// After a round without waits there are no calls. The next wait starts a new ticker.
	ws.ticking = !ws.closed && (ws.first != nil || ws.newest+2 > ws.round)
	return late, ws.ticking
}

// close waits for the end of all goroutines. No call may be running.
func (ws *waits) close() {
	ws.mu.Lock()
	ws.closed = true
	ws.mu.Unlock()
	ws.goroutines.Wait()
}
