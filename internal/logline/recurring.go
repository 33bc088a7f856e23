package logline

import (
	"sync"
	"time"
)

// A fault that lasts is told again every RemindEvery. It is over when nothing was heard of it
// for overAfter.
const (
	RemindEvery = 10 * time.Minute
	overAfter   = time.Minute
)

// Recurring is a fault that is heard of again and again while it lasts. Its zero value is
// ready, and its methods may be called concurrently.
type Recurring struct {
	mu         sync.Mutex // guards what follows
	last       time.Time  // when it was heard of
	told       time.Time  // when a line was written
	suppressed int        // how often it was heard of since then
}

// Note reports whether the fault, which has come up n times at now, is to be logged, and how
// often it has been suppressed since the last line.
func (r *Recurring) Note(now time.Time, n int) (suppressed int, tell bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	goesOn := now.Sub(r.last) < overAfter && now.Sub(r.told) < RemindEvery
	r.last = now
	if goesOn {
		r.suppressed += n
		return 0, false
	}
	suppressed, r.suppressed, r.told = r.suppressed, 0, now
	return suppressed, true
}
