package shared

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"

	"github.com/davidwartell/go-grpcpool"
)

// channel is one *grpc.ClientConn of the pool, and the count of its leases.
//
// INVARIANT: who sets the closing bit of tally closes conn. The bit is set only while
// no lease is out, or by Close after its drain timeout.
type channel struct {
	pool      *Pool
	conn      *grpc.ClientConn
	inspector grpcpool.Inspector  // nil if the factory offers none
	watcher   grpcpool.Supervisor // inspector, if it is one; otherwise nil
	ledger    *ledger             // what is known of conn's connections
	id        uint64              // the pool's number for it, from 1
	born      time.Duration       // on the pool's clock, when it was dialled

	// tally packs three things into one word: the leases out, the flags, and the leases
	// ever granted. So Get and Return need one atomic operation each, and the watchdog
	// can tell "no lease since the last look" from "no lease now".
	tally atomic.Uint64
	batch atomic.Pointer[batch] // has the leases of the next grants; nil at first

	health   atomic.Int32 // a health
	provenAt atomic.Int64 // on the pool's clock: the latest known sign of life
	heard    atomic.Bool  // a sign of life since the watchdog last looked
	doubted  atomic.Bool  // an RPC ended with Unavailable since then

	connected   atomic.Bool   // it has had a connection
	opened      atomic.Bool   // that has been reported
	called      atomic.Bool   // an RPC of the pool has been made on it, or a lease taken that was not tested
	connections atomic.Uint32 // that it has reported so far
	restedAt    atomic.Int64  // on the pool's clock, when the watchdog last went to sleep
	awaySince   atomic.Int64  // on the pool's clock, since when it has had no connection; 0 if it had one at the last event

	// What the channel says about itself; see supervised.go.
	supervised atomic.Bool                        // it watches its own connections, as last asked
	lost       atomic.Bool                        // a connection of it has ended since its last test began
	regained   atomic.Bool                        // it has a new connection since then
	onRegained atomic.Pointer[context.CancelFunc] // called when it has; nil: nobody waits for it

	recovery recovery // owned by the attempt under way
	judged   bool     // postponeDial has counted it; guarded by Pool.mu
	idle     idleness // owned by the watchdog
}

// The parts of channel.tally. The count of grants wraps around at 2^33. That would
// matter only if all of them came between two looks of the watchdog.
const (
	oneLease uint64 = 1
	leases   uint64 = 1<<28 - 1 // bits 0 to 27: leases out
	retired  uint64 = 1 << 28   // no new leases
	closing  uint64 = 1 << 29   // somebody is closing conn, or has
	resting  uint64 = 1 << 30   // the watchdog sleeps: a grant wakes it, and so does the last return
	oneGrant uint64 = 1 << 31   // bits 31 to 63: leases ever granted

	grantShift = 31
)

// health is whether a channel may be lent.
type health = int32

const (
	unproven    health = iota // lend it if leases are out; otherwise test it first
	proven                    // lend it
	failed                    // it failed its test: do not lend it
	unconnected               // it has not been connected: connect and test it first
)

// acquire takes a lease and returns the tally with it. It returns false if the channel
// is retired. release gives the lease back.
func (c *channel) acquire() (t uint64, ok bool) {
	t = c.tally.Add(oneGrant + oneLease)
	if t&(retired|resting) == 0 {
		return t, true
	}
	if t&retired != 0 {
		c.release()
		return 0, false
	}
	c.stir()
	return t, true
}

// release gives a lease back. The last one out closes a retired channel, and wakes the
// watchdog, which has to see when the idle time begins.
func (c *channel) release() {
	t := c.tally.Add(^uint64(0)) // - oneLease
	if t&leases == leases {
		panic("grpcpool: a lease was released twice") // a bug of this package: lease.Return is idempotent
	}
	if t&leases != 0 || t&(retired|resting) == 0 {
		return
	}
	if t&retired != 0 {
		c.closeOnce()
		return
	}
	c.stir()
}

// rest lets the watchdog sleep until a lease is granted or the last one is returned, if
// the tally is still what it was when it was seen.
func (c *channel) rest(seen uint64) bool {
	c.restedAt.Store(int64(c.pool.now())) // first: see unused
	return c.tally.CompareAndSwap(seen, seen|resting)
}

// unused reports whether c has had no lease for provedEnough.
func (c *channel) unused() bool {
	return c.tally.Load()&(leases|resting) == resting && c.pool.now()-time.Duration(c.restedAt.Load()) >= provedEnough
}

// stir undoes rest.
func (c *channel) stir() {
	if c.tally.And(^resting)&resting != 0 {
		c.pool.wakeWatchdog()
	}
}

// retire ends the lending of c. The last lease out closes it, or this call if none is
// out. It reports whether leases are out.
func (c *channel) retire() bool {
	t := c.tally.Or(retired)
	if t&leases != 0 {
		return true
	}
	c.closeOnce()
	return false
}

// retireIfStill retires and closes c, if its tally is still what it was when it was
// seen, with no lease out.
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

// lendable reports whether c may be lent without a test, by its health and by whether
// other leases are out. Then it is tested in the background, or, if it is supervised, it
// proves itself: a proof as old as package scale wants it for a call is enough.
func (c *channel) lendable() bool {
	switch c.health.Load() {
	case proven:
		return true
	case unproven:
		return c.tally.Load()&leases != 0 && (!c.supervised.Load() || c.pool.now()-c.lastProof() < provedEnough)
	default:
		return false
	}
}

// prove notes that c was alive at the given time.
func (c *channel) prove(at time.Duration) {
	raise(&c.provenAt, int64(at))
	c.health.Store(proven)
}

// heardSince reports whether there was a sign of life after the given time, to within
// one look of the watchdog.
func (c *channel) heardSince(at time.Duration) bool {
	return c.heard.Load() || time.Duration(c.provenAt.Load()) >= at
}

// noteResult notes what the result of a unary RPC says about c. A success is a sign of
// life. It is noted without reading the clock, and the load before the store keeps the
// cache line shared while there is traffic.
func (c *channel) noteResult(outcome codes.Code) {
	switch outcome {
	case codes.OK:
		if !c.heard.Load() {
			c.heard.Store(true)
		}
		if c.pool.away.Load() && c.conn.GetState() == connectivity.Ready { // not an interceptor's answer
			c.pool.noteBack(c)
		}
	case codes.Unavailable:
		c.doubt()
	default:
	}
}

// doubt makes the pool test c soon if leases are out, and before the next lease if none
// is. A server that answers Unavailable itself is tested at most once in minDoubtAge, and not at
// all if c is supervised: its answer is a proof of life.
func (c *channel) doubt() {
	proof := time.Duration(c.provenAt.Load())
	if c.supervised.Load() {
		proof = max(proof, c.lastProof())
	}
	if c.pool.now()-proof < minDoubtAge {
		return
	}
	c.health.CompareAndSwap(proven, unproven)
	if !c.doubted.Swap(true) {
		c.pool.wakeWatchdog()
	}
}

// raise makes v at least n.
func raise(v *atomic.Int64, n int64) {
	for {
		before := v.Load()
		if before >= n || v.CompareAndSwap(before, n) {
			return
		}
	}
}
