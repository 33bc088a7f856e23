package shared

import (
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
)

// channel is one *grpc.ClientConn of the pool and the count of its leases.
//
// INVARIANT: conn is closed by whoever sets the closing bit of tally, and the
// bit is set only while no lease is out, or by Close past its drain timeout.
type channel struct {
	pool   *Pool
	conn   *grpc.ClientConn
	inside grpcpool.Inside // nil if the factory does not offer it
	told   *inside         // what conn has told of its connections
	id     uint64          // among the pool's, from 1
	born   time.Duration   // on the pool's clock, when it was dialled

	// tally packs the leases out, the flags and the leases ever granted into one
	// word, so that Get and Return cost one atomic each, and so that the
	// watchdog can tell "no lease since I last looked" from "none right now".
	tally atomic.Uint64
	batch atomic.Pointer[batch] // where the leases of the next grants are; nil at first

	health   atomic.Int32 // a health
	provenAt atomic.Int64 // on the pool's clock: the latest known sign of life
	heard    atomic.Bool  // a sign of life since the watchdog last looked
	doubted  atomic.Bool  // an RPC has ended with Unavailable since then

	idle idleness // owned by the watchdog
}

// The parts of channel.tally. The count of grants wraps around at 2^34, which
// matters only if all of them come between two looks of the watchdog.
const (
	oneLease uint64 = 1
	leases   uint64 = 1<<28 - 1 // bits 0 to 27: leases out
	retired  uint64 = 1 << 28   // no new leases
	closing  uint64 = 1 << 29   // somebody is closing conn, or has
	oneGrant uint64 = 1 << 30   // bits 30 to 63: leases ever granted

	grantShift = 30
)

// health is what a Get may make of a channel.
type health = int32

const (
	unproven health = iota // lend it if leases are out, test it first if none is
	proven                 // lend it
	failed                 // it failed its test: do not lend it
)

// acquire takes a lease and returns the tally with it, or false when the channel
// is retired. Undone by release.
func (c *channel) acquire() (t uint64, ok bool) {
	t = c.tally.Add(oneGrant + oneLease)
	if t&retired != 0 {
		c.release()
		return 0, false
	}
	return t, true
}

// release gives a lease back. The last one out closes a retired channel.
func (c *channel) release() {
	t := c.tally.Add(^uint64(0)) // - oneLease
	if t&leases == leases {
		panic("grpcpool: a lease was released twice") // would be a bug of this package: lease.Return is idempotent
	}
	if t&(leases|retired) == retired {
		c.closeOnce()
	}
}

// retire ends the lending of c: the last lease out, or this call, closes it.
// It reports whether leases are out.
func (c *channel) retire() bool {
	t := c.tally.Or(retired)
	if t&leases != 0 {
		return true
	}
	c.closeOnce()
	return false
}

// retireIfStill retires and closes c, provided that nothing has happened to its
// tally since it was seen with no lease out.
func (c *channel) retireIfStill(seen uint64) bool {
	if seen&leases != 0 || !c.tally.CompareAndSwap(seen, seen|retired|closing) {
		return false
	}
	c.pool.closeChannel(c, EventClosedIdle)
	return true
}

// closeOnce closes c's connection unless that has been begun already.
func (c *channel) closeOnce() {
	if c.tally.Or(retired|closing)&closing != 0 {
		return
	}
	if c.pool.ctx.Err() != nil {
		c.pool.closeChannel(c, EventClosedShutdown)
	} else {
		c.pool.closeChannel(c, EventClosedRetired)
	}
}

func (c *channel) leasesOut() int { return int(c.tally.Load() & leases) }

// lendable reports whether c may be lent without a test, going by its health and
// by whether other leases are out.
func (c *channel) lendable() bool {
	switch c.health.Load() {
	case proven:
		return true
	case unproven:
		return c.tally.Load()&leases != 0
	default:
		return false
	}
}

// prove notes that c was alive at the given time.
func (c *channel) prove(at time.Duration) {
	c.provenAt.Store(int64(at))
	c.health.Store(proven)
}

// heardSince reports whether there was a sign of life after the given time, give
// or take a look of the watchdog.
func (c *channel) heardSince(at time.Duration) bool {
	return c.heard.Load() || time.Duration(c.provenAt.Load()) >= at
}

// noteResult notes what the end of a unary RPC says about c. A good end is a sign
// of life; it is noted without asking the clock, and the load keeps the cache line
// shared while there is traffic.
func (c *channel) noteResult(err error) {
	switch {
	case err == nil:
		if !c.heard.Load() {
			c.heard.Store(true)
		}
	case status.Code(err) == codes.Unavailable:
		c.doubt()
	}
}

// doubt has c tested soon, if leases are out, and before it is lent again, if
// none is. A server that answers Unavailable of its own accord is not tested more
// often than every doubtPause.
func (c *channel) doubt() {
	if c.pool.now()-time.Duration(c.provenAt.Load()) < doubtPause {
		return
	}
	c.health.CompareAndSwap(proven, unproven)
	if !c.doubted.Swap(true) {
		c.pool.poke()
	}
}
