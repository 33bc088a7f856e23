package shared

import (
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool"
)

// lease is one borrowed use of a channel.
type lease struct {
	c        *channel
	returned atomic.Bool
}

// batchSize is how many leases are allocated at a time. A lease that is held for long
// keeps its batch in memory, half a KiB.
const batchSize = 32

// batch has the leases for the grants first to first+batchSize-1 of a channel.
//
// INVARIANT: a lease is handed out once. Until the tally wraps around it gives each
// number once, so taking a lease out of a batch needs no atomic operation of its own.
// After that, a lease whose c is set has been handed out.
type batch struct {
	first  uint64
	leases [batchSize]lease
}

// newLease returns the lease for the grant that made c's tally t. If no other lease is
// out it is one of a batch, which saves an allocation. If others are out it is not:
// neighbours in a batch would share cache lines between processors, which costs more
// than it saves. The first grant of a batch makes the batch.
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
		return &lease{c: c} // the tally has wrapped around since the batch was made
	}
	l.c = c
	return l
}

var (
	_ grpcpool.PoolClientConn = (*lease)(nil)
	_ grpcpool.PoolClientConn = (*trackedLease)(nil)
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
