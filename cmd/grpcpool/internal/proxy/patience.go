package proxy

import (
	"sync"
	"time"
)

// patience is how long a message waits for what is likely to come with it, so that
// both go on in one piece: a request for its end, headers and the first answer for
// what follows. In a unary call these come together, and passing them on one by one
// would double what the call costs. Where they do not come together, the first call
// of a method loses up to twice this time, and the method's shape is remembered.
const patience = 2 * time.Millisecond

// impatient is who waits.
type impatient interface {
	// tooLate is called once, on a goroutine of its own, if the wait was in vain.
	// It may also be called when the wait has just been ended.
	tooLate()
}

// wait is one wait, from begin to end. It must not be copied or used again.
type wait struct {
	// These belong to waits.mu.
	who        impatient // nil: it has not begun, or is over
	since      uint64    // the round that it began in
	prev, next *wait
}

// waits are all that wait. One ticker looks after them. A timer for each would cost a
// call two system calls: Go wakes the thread that waits for the network whenever
// something is due before what that thread knows of.
type waits struct {
	goroutines sync.WaitGroup // the ticker's, and those of tooLate

	mu      sync.Mutex // guards what follows; held for moments
	first   *wait      // the longest
	last    *wait
	round   uint64 // counts ticks
	newest  uint64 // the round that the last wait began in
	ticking bool
	closed  bool
}

// begin lets who wait for as long as patience lasts. Undone by end.
func (ws *waits) begin(w *wait, who impatient) {
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

// end ends w, unless it is over or never began.
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

// tick runs for as long as there are waits.
func (ws *waits) tick() {
	t := time.NewTicker(patience)
	defer t.Stop()
	for range t.C {
		late, goOn := ws.turn()
		for _, who := range late {
			ws.goroutines.Go(who.tooLate)
		}
		if !goOn {
			return
		}
	}
}

// turn returns who has waited for a whole round, and whether another is needed.
func (ws *waits) turn() (late []impatient, goOn bool) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.round++
	for w := ws.first; w != nil && w.since+2 <= ws.round; w = ws.first {
		late = append(late, w.who)
		ws.removeLocked(w)
	}
	// Without waits for a round there are no calls, and the next begins another ticker.
	ws.ticking = !ws.closed && (ws.first != nil || ws.newest+2 > ws.round)
	return late, ws.ticking
}

// close waits for the end of all goroutines. No call may be under way.
func (ws *waits) close() {
	ws.mu.Lock()
	ws.closed = true
	ws.mu.Unlock()
	ws.goroutines.Wait()
}
