package shared

import (
	"container/list"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool"
)

// lease is one borrowed use of a channel.
type lease struct {
	c        *channel
	returned atomic.Bool
}

// batchSize is how many leases are allocated at a time. A lease that is held for
// long keeps its batch, half a KiB, in memory.
const batchSize = 32

// batch is the leases for the grants first to first+batchSize-1 of a channel.
//
// INVARIANT: a lease is handed out once. Until the tally wraps around it gives out
// each number once, so taking a lease needs no atomic operation of its own; after
// that the lease's c tells that it was handed out.
type batch struct {
	first  uint64
	leases [batchSize]lease
}

// newLease is the lease for the grant that made c's tally t. A caller alone gets
// one of a batch, which costs half of an allocation; where others hold leases too,
// neighbours in a batch would share cache lines across processors, which costs
// more than it saves. Whoever has the first grant of a batch makes the batch.
func (c *channel) newLease(t uint64) *lease {
	grant := t >> grantShift
	first := grant &^ (batchSize - 1)
	b := c.batch.Load()
	switch {
	case t&leases > 1:
		return &lease{c: c}
	case b != nil && b.first == first:
	case grant == first:
		b = &batch{first: first}
		c.batch.Store(b)
	default:
		return &lease{c: c}
	}
	l := &b.leases[grant-first]
	if l.c != nil {
		return &lease{c: c} // the numbers have wrapped around since the batch was made
	}
	l.c = c
	return l
}

var (
	_ grpcpool.PoolClientConn = (*lease)(nil)
	_ grpcpool.PoolClientConn = (*watchedLease)(nil)
)

func (l *lease) Connection() *grpc.ClientConn {
	if l.returned.Load() {
		return nil
	}
	return l.c.conn
}

func (l *lease) Return() {
	if l.returned.CompareAndSwap(false, true) {
		l.c.release()
	}
}

// watchedLease is a lease under leak detection.
type watchedLease struct {
	lease

	b *borrow
}

func (l *watchedLease) Return() {
	l.c.pool.borrows.remove(l.b)
	l.lease.Return()
}

// borrow is what leak detection knows of one lease.
type borrow struct {
	at    time.Duration // on the pool's clock
	stack []uintptr
	elem  *list.Element // guarded by borrows.mu; nil once reported or returned
}

// borrows are the leases that are out and not reported yet, oldest first.
type borrows struct {
	mu   sync.Mutex // guards list and every borrow.elem
	list list.List
}

// add begins to watch a lease that the caller's caller has got.
func (bs *borrows) add(at time.Duration) *borrow {
	var pcs [32]uintptr
	n := runtime.Callers(3, pcs[:]) // skip Callers, add and Get
	b := &borrow{at: at, stack: append([]uintptr(nil), pcs[:n]...)}
	bs.mu.Lock()
	defer bs.mu.Unlock()
	b.elem = bs.list.PushBack(b)
	return b
}

func (bs *borrows) remove(b *borrow) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	bs.removeLocked(b)
}

func (bs *borrows) removeLocked(b *borrow) {
	if b.elem != nil {
		bs.list.Remove(b.elem)
		b.elem = nil
	}
}

// overdue takes out the leases that were borrowed at or before the given time,
// and says when the oldest of the others was.
func (bs *borrows) overdue(before time.Duration) (due []*borrow, oldest time.Duration, more bool) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	for e := bs.list.Front(); e != nil; e = bs.list.Front() {
		b := e.Value.(*borrow) //nolint:forcetypeassert // the list holds nothing else
		if b.at > before {
			return due, b.at, true
		}
		due = append(due, b)
		bs.removeLocked(b)
	}
	return due, 0, false
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
