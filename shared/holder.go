package shared

import (
	"cmp"
	"container/list"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"
)

// trackedLease is a lease that leak detection watches, or whose end Hooks.Used sees.
type trackedLease struct {
	lease

	at time.Duration // on the pool's clock, when it was taken
	b  *borrow       // nil without leak detection
}

// newTrackedLease must be called by Get itself: it looks for Get's caller.
func (p *Pool) newTrackedLease(c *channel) *trackedLease {
	l := &trackedLease{lease: lease{c: c}, at: p.now()}
	if p.cfg.leakAfter > 0 {
		l.b = p.borrows.add(l.at)
	}
	return l
}

func (l *trackedLease) Return() {
	if !l.returned.CompareAndSwap(false, true) {
		return
	}
	defer l.c.release() // also if a hook panics
	p := l.c.pool
	if l.b != nil {
		p.borrows.remove(l.b)
	}
	if len(p.hooks.used) > 0 {
		p.noteUse(l.at)
	}
}

// borrow is what leak detection knows about one lease.
type borrow struct {
	at    time.Duration // on the pool's clock
	stack []uintptr     // of the Get, innermost call first; never written again

	// Guarded by borrows.mu:
	in   *list.List    // the list that it is in; nil once returned
	elem *list.Element // of in
}

// borrows are the leases that are out, oldest first.
type borrows struct {
	mu       sync.Mutex // guards the lists, and the fields of borrow that say so
	fresh    list.List  // not reported yet
	reported list.List
}

// add tracks a lease that is about to be lent.
func (bs *borrows) add(at time.Duration) *borrow {
	var pcs [32]uintptr
	n := runtime.Callers(4, pcs[:]) // skip Callers, add, newTrackedLease and Get
	b := &borrow{at: at, stack: append([]uintptr(nil), pcs[:n]...)}
	bs.mu.Lock()
	defer bs.mu.Unlock()
	bs.putLocked(b, &bs.fresh)
	return b
}

func (bs *borrows) putLocked(b *borrow, in *list.List) {
	b.in, b.elem = in, in.PushBack(b)
}

func (bs *borrows) remove(b *borrow) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	bs.removeLocked(b)
}

func (bs *borrows) removeLocked(b *borrow) {
	if b.in != nil {
		b.in.Remove(b.elem)
		b.in, b.elem = nil, nil
	}
}

// takeOverdue returns the leases that were borrowed at or before the given time and not
// reported yet, and marks them as reported. If there are more, oldest is when the oldest
// of them was borrowed.
func (bs *borrows) takeOverdue(before time.Duration) (due []*borrow, oldest time.Duration, more bool) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	for e := bs.fresh.Front(); e != nil; e = bs.fresh.Front() {
		b := e.Value.(*borrow) //nolint:forcetypeassert // the list holds nothing else
		if b.at > before {
			return due, b.at, true
		}
		due = append(due, b)
		bs.removeLocked(b)
		bs.putLocked(b, &bs.reported)
	}
	return due, 0, false
}

// holding sums up the leases of one place in the program.
type holding struct {
	leases, leaked int
	oldest         time.Duration // on the pool's clock
}

// byPlace sums up the leases by the program counter of their Get.
func (bs *borrows) byPlace() map[uintptr]*holding {
	places := make(map[uintptr]*holding)
	bs.mu.Lock()
	defer bs.mu.Unlock()
	for _, l := range []*list.List{&bs.reported, &bs.fresh} {
		for e := l.Front(); e != nil; e = e.Next() {
			b := e.Value.(*borrow) //nolint:forcetypeassert // the lists hold nothing else
			h := places[b.pc()]
			if h == nil {
				h = &holding{oldest: b.at}
				places[b.pc()] = h
			}
			h.leases++
			h.oldest = min(h.oldest, b.at)
			if l == &bs.reported {
				h.leaked++
			}
		}
	}
	return places
}

// Holder is a place in the program that holds leases.
type Holder struct {
	Func   string        // the function that called Get, with its package
	File   string        // the file of the call, with its whole path
	Line   int           // the line of the call, from 1
	Leases int           // how many are out now
	Leaked int           // how many of these leak detection has reported
	Oldest time.Duration // how long the oldest of these has been out
}

// String returns the function, and the file without its path and the line.
func (h Holder) String() string {
	return fmt.Sprintf("%s (%s:%d)", h.Func, filepath.Base(h.File), h.Line)
}

// Holders returns the places in the program that hold leases of Get, the one with the
// oldest lease first. It is empty without leak detection; see WithLeakDetection. It may
// be called at any time, also after Close.
func (p *Pool) Holders() []Holder {
	places := p.borrows.byPlace()
	now := p.now()
	holders := make([]Holder, 0, len(places))
	for pc, h := range places {
		at := placeOf(pc)
		at.Leases, at.Leaked, at.Oldest = h.leases, h.leaked, now-h.oldest
		holders = append(holders, at)
	}
	slices.SortFunc(holders, func(a, b Holder) int {
		return cmp.Or(cmp.Compare(b.Oldest, a.Oldest), cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return holders
}

// pc is the program counter of the Get.
func (b *borrow) pc() uintptr {
	if len(b.stack) == 0 {
		return 0
	}
	return b.stack[0]
}

// place is where the Get was.
func (b *borrow) place() Holder { return placeOf(b.pc()) }

func placeOf(pc uintptr) Holder {
	f, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	return Holder{Func: f.Function, File: f.File, Line: f.Line}
}
