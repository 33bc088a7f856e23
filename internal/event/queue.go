package event

import (
	"sync"
	"time"
)

const (
	// KeptLatest is how many events Latest returns at most.
	KeptLatest = 64

	// MaxPending is how many events wait for delivery at most. Beyond it the oldest
	// is dropped, so that a slow receiver holds up nobody.
	MaxPending = 1024
)

// Queue keeps the latest events, and delivers events to one receiver: in order, one
// at a time, with no lock held. Set the exported fields before the first Add. The
// methods may be called concurrently.
type Queue struct {
	// Deliver receives the events. It may block, and may call every method but Flush
	// and Wait.
	Deliver func(Event)

	// JoinFloods makes an event that Floods join an earlier one of the same kind and
	// address, if only such events have come in between. The joined event stands at
	// the end, says what the later one says, and counts both. Leaks are joined only if
	// their Text is the same, too.
	JoinFloods bool

	mu         sync.Mutex // guards what follows; never held while Deliver runs
	latest     []Event
	pending    []Event       // not delivered yet
	delivering bool          // a goroutine delivers what is pending, or is about to
	idle       chan struct{} // closed when it has ended; nil if nobody waits for that
}

// Add keeps e. If run is not nil, e is delivered: by the goroutine that delivers
// already, or else by one that run starts. run gets the func to start, and returns
// false if it is too late for that; e then stays pending until the next Add or Flush.
// Add holds no lock while it calls run.
func (q *Queue) Add(e Event, run func(deliver func()) bool) {
	e.Count = max(e.Count, 1)
	if q.enqueue(e, run != nil) && !run(q.deliver) {
		q.mu.Lock()
		q.endDeliveryLocked()
		q.mu.Unlock()
	}
}

// enqueue reports whether delivery has to be started.
func (q *Queue) enqueue(e Event, deliver bool) (start bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.latest = q.appendTo(q.latest, e, KeptLatest)
	if !deliver {
		return false
	}
	q.pending = q.appendTo(q.pending, e, MaxPending)
	start = !q.delivering
	q.delivering = true
	return start
}

// appendTo appends e to all, joined with an earlier event where that is possible,
// and drops the oldest beyond limit.
func (q *Queue) appendTo(all []Event, e Event, limit int) []Event {
	if q.JoinFloods && Floods(e.Kind) {
		for i := len(all) - 1; i >= 0 && Floods(all[i].Kind); i-- {
			if joinable(&all[i], &e) {
				e.Count += all[i].Count
				e.Connections += all[i].Connections
				all = append(all[:i], all[i+1:]...)
				break
			}
		}
	}
	if len(all) >= limit {
		all = all[len(all)-limit+1:] // append moves the rest when the array is used up
	}
	return append(all, e)
}

func joinable(a, b *Event) bool {
	return a.Kind == b.Kind && a.Address == b.Address && (a.Kind != Leaked || a.Text == b.Text)
}

// deliver delivers until nothing is pending.
func (q *Queue) deliver() {
	for batch := q.take(); len(batch) > 0; batch = q.take() {
		for i := range batch {
			q.Deliver(batch[i])
		}
	}
}

// take returns what is pending. If that is nothing, the delivery has ended.
func (q *Queue) take() []Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch := q.pending
	q.pending = nil
	if len(batch) == 0 {
		q.endDeliveryLocked()
	}
	return batch
}

func (q *Queue) endDeliveryLocked() {
	q.delivering = false
	if q.idle != nil {
		close(q.idle)
		q.idle = nil
	}
}

// Flush delivers on the caller's goroutine what is pending, unless another goroutine
// delivers it already.
func (q *Queue) Flush() {
	q.mu.Lock()
	mine := !q.delivering && len(q.pending) > 0
	q.delivering = q.delivering || mine
	q.mu.Unlock()
	if mine {
		q.deliver()
	}
}

// Delivering reports whether an event is being delivered, or is about to be.
func (q *Queue) Delivering() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.delivering
}

// Wait waits until everything is delivered, or for atMost.
func (q *Queue) Wait(atMost time.Duration) {
	q.mu.Lock()
	if !q.delivering {
		q.mu.Unlock()
		return
	}
	if q.idle == nil {
		q.idle = make(chan struct{})
	}
	idle := q.idle
	q.mu.Unlock()
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
}

// Latest returns the latest events, oldest first.
func (q *Queue) Latest() []Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]Event(nil), q.latest...)
}
