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
