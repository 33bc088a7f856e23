package shared

import (
	"cmp"
	"container/list"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// watchedLease is a lease under leak detection, or one that Hooks.Used is told of.
type watchedLease struct {
	lease

	at time.Duration // on the pool's clock, when it was taken
	b  *borrow       // nil without leak detection
}

// newWatchedLease is for Get only: it looks for Get's caller.
func (p *Pool) newWatchedLease(c *channel) *watchedLease {
	l := &watchedLease{lease: lease{c: c}, at: p.now()}
	if p.cfg.leakAfter > 0 {
		l.b = p.borrows.add(l.at)
	}
	return l
}

func (l *watchedLease) Return() { l.end() }

// end is Return. It is false if the lease has been returned before.
func (l *watchedLease) end() bool {
	if !l.returned.CompareAndSwap(false, true) {
		return false
	}
	defer l.c.release() // also if a hook panics
	p := l.c.pool
	if l.b != nil {
		p.borrows.remove(l.b)
	}
	if len(p.hooks.used) > 0 {
		p.used(l.at)
	}
	return true
}

// borrow is what leak detection knows of one lease.
type borrow struct {
	at    time.Duration // on the pool's clock
	stack []uintptr

	// Guarded by borrows.mu:
	in   *list.List    // where it is; nil once returned
	elem *list.Element // of in
}

// borrows are the leases that are out, oldest first.
type borrows struct {
	mu       sync.Mutex // guards the lists and what borrow says
	fresh    list.List  // not reported yet
	reported list.List
}

// add begins to watch a lease that is about to be lent.
func (bs *borrows) add(at time.Duration) *borrow {
	var pcs [32]uintptr
	n := runtime.Callers(4, pcs[:]) // skip Callers, add, newWatchedLease and Get
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

// overdue marks the leases as reported that were borrowed at or before the given
// time and returns them, and says when the oldest of the others was.
func (bs *borrows) overdue(before time.Duration) (due []*borrow, oldest time.Duration, more bool) {
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

// holding is what the leases of one place in the program come to.
type holding struct {
	leases, leaked int
	oldest         time.Duration // on the pool's clock
}

// byPlace sums the leases up by the program counter of their Get.
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
	File   string        // where in it; with the whole path
	Line   int           //
	Leases int           // out now
	Leaked int           // of these, reported by leak detection
	Oldest time.Duration // how long the oldest of them has been out
}

// String is the function, and the file and line without the path.
func (h Holder) String() string {
	return fmt.Sprintf("%s (%s:%d)", h.Func, filepath.Base(h.File), h.Line)
}

// Holders says who holds the leases that Get has lent, longest first. It is empty
// without leak detection. It may be called at any time.
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

// String is the stack of the Get, innermost call first, a line each.
func (b *borrow) String() string {
	var text strings.Builder
	frames := runtime.CallersFrames(b.stack)
	for {
		f, more := frames.Next()
		fmt.Fprintf(&text, "%s\n\t%s:%d\n", f.Function, f.File, f.Line)
		if !more {
			return text.String()
		}
	}
}
