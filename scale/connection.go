package scale

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/resolver"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// outBit in connection.streams closes a connection to new streams. It is higher
// than any limit, so that one comparison answers for both.
const outBit = 1 << 40

// doubtBit in connection.streams keeps new streams off a connection until it is proved to be
// alive; see doubt.go. It too is higher than any limit.
const doubtBit = 1 << 41

// noLimit is above any number of streams and below outBit.
const noLimit = 1 << 39

// connection is one real SubConn of gRPC. It is used for one transport only: a
// SubConn that connected again would mix the streams of two.
type connection struct {
	id     uint64
	sub    *subchannel
	sc     balancer.SubConn
	tap    *tap.State
	made   time.Time                   // what its clock counts from
	window atomic.Pointer[probeWindow] // the current one, whose done gives a stream back; see picker.go

	to          atomic.Pointer[resolver.Address] // the address it is connected to; nil: one of several, not known which
	streams     atomic.Int64                     // in flight, plus outBit and doubtBit
	softLimit   atomic.Int64                     // streams it takes before the next connection is asked
	callLimit   atomic.Int64                     // streams it takes at all; softLimit <= callLimit
	serverLimit atomic.Int64                     // streams the server allows, for probes too; callLimit <= serverLimit
	hasAnswered atomic.Bool                      // the server answered a call on it
	aliveAt     atomic.Int64                     // the latest time at which it is known to have been alive, on its clock
	answeredAt  atomic.Int64                     // when the first answer of a window, or that of a probe, was last seen, on its clock
	openedThen  atomic.Int64                     // streams that had been opened on it by then
	arrived     atomic.Int64                     // bytes sent on it that are known to have reached the server
	pace        atomic.Int64                     // bytes a second that arrived lately, of many; 0: not known
	probing     atomic.Bool                      // one of its streams is a probe's
	used        atomic.Bool                      // it took a stream since the last look of shrink; not kept for the oldest

	drainedAt atomic.Int64 // when the server named the last stream that it has begun, on its clock; 0: not yet

	hurry chan struct{} // holds one: a call waits for the inquiry that runs

	// The rest is guarded by sub.mu.
	phase     phase
	dialledAt time.Time      // when it was last told to connect, or to wait for a place in the budget
	longDial  bool           // its dial goes on while others are begun beside it, see dialling.go
	sideDial  bool           // it was dialled beside a long one
	spread    time.Duration  // between dials that get no answer, at least
	retryAt   time.Time      // when the next dial may begin, if this one has failed and there is demand
	place     *place         // in the budget; nil: none
	inLine    bool           // its dial waits for that place
	late      bool           // its handshake goes on, and callers were told that they need not wait for it: see handshakes.go
	beside    bool           // it was dialled beside a late one
	unheard   bool           // the server has not acknowledged what was sent
	patience  time.Duration  // how long callers wait for its handshake
	errand    func(*effects) // it only brings this to gRPC's goroutine: see runOnGRPC
	readyAt   time.Time      // zero if it never was READY
	opened    bool           // it was put to use
	givenUp   error          // why its dial was given up; nil: it was not
	watched   bool           // one of its streams is set aside for a health watch, see health.go
	checked   bool           // there is such a watch
	quiet     int            // looks of shrink since it was last used

	probeTimer timer           // has probeTick look at it, see liveness.go
	idleShare  float64         // of the probe interval, after which it is probed if it is idle
	quietFor   time.Duration   // its probe interval while nobody uses it; 0: it is in use
	usedAt     time.Duration   // when it was last known to be used, on its clock
	called     bool            // a call has found it quiet since the last look
	awaited    bool            // calls wait until it is proved
	urgent     bool            // HTTP/2 is to be asked at the next look
	awaitedAt  time.Duration   // since when, on its clock
	unanswered int             // probes in a row that have no answer
	wokeAt     time.Duration   // when the machine was last seen to have slept, on its clock
	lateBy     time.Duration   // how long the last answer took if it ended a silence; 0: answers are quick again
	doubt      doubt           // why it takes no new calls
	nudge      chan struct{}   // tells the inquiry that its successor has answered; nil: it was never silent
	probes     []time.Duration // what the latest probes took, oldest first

	predecessor *connection // which it is to replace; nil: none
	passed      bool        // on its trial it has answered, and it waits for the verdict on its predecessor
	replace     replacement // the plan for its own replacement
}

// newConnection makes a connection, without connecting it. sub.mu must not be
// held: gRPC takes locks of its own.
func (s *subchannel) newConnection(addrs []resolver.Address) (*connection, error) {
	c := &connection{sub: s, id: s.policy.channel.connections.Add(1), made: time.Now(), hurry: make(chan struct{}, 1)}
	c.tap = tap.New(tap.Events{
		Limit:  c.onLimit,
		GoAway: c.onGoAway,
	})
	c.newWindow()
	set := s.policy.settings.Load()
	if set.holdGoAway {
		c.tap.WithHold()
	}
	if set.probeInterval > 0 {
		c.tap.WithUserTimeout(set.userTimeout())
		c.tap.WithKeepAlive(keepAlive) // for when there are few probes
	}
	bundle := s.bundle(c.tap)
	if len(addrs) > 1 && bundle != nil {
		bundle = addressBundle{bundle, c}
	}
	sc, err := s.policy.cc.NewSubConn(c.numbered(addrs), balancer.NewSubConnOptions{ //nolint:staticcheck // deprecated for several addresses only
		CredsBundle:   bundle, //nolint:staticcheck // the only way to know which SubConn a connection belongs to
		StateListener: c.onState,
	})
	if err != nil {
		return nil, err
	}
	c.sc = sc
	return c, nil
}

// bundle is what the SubConn would use anyway, with a tap. The CredsBundle of the
// child policy comes before that of the channel, and both before its credentials.
func (s *subchannel) bundle(t *tap.State) credentials.Bundle {
	opts := &s.policy.opts
	switch {
	case s.opts.CredsBundle != nil: //nolint:staticcheck // a child policy may use it: grpclb does
		return tap.WrapBundle(s.opts.CredsBundle, t) //nolint:staticcheck // see above
	case opts.CredsBundle != nil:
		return tap.WrapBundle(opts.CredsBundle, t)
	case opts.DialCreds != nil:
		return tap.Bundle(opts.DialCreds, nil, t)
	default:
		return nil
	}
}

// inFlight is the number of streams.
func (c *connection) inFlight() int64 { return c.streams.Load() &^ (outBit | doubtBit) }

// takeOut closes c to new streams.
func (c *connection) takeOut() { c.streams.Or(outBit) }

// busy reports whether c has a stream that is not a probe's.
func (c *connection) busy() bool { return c.inFlight() > int64(boolToInt(c.probing.Load())) }

// takeOutIfUnused closes c to new streams if it has none, or only a probe's. Then no call
// is between its Pick and its end on this connection, and none will be.
func (c *connection) takeOutIfUnused() bool {
	probes := int64(boolToInt(c.probing.Load()))
	n := c.streams.Load()
	return n&^doubtBit == probes && c.streams.CompareAndSwap(n, n|outBit)
}

// onLimit is told the server's limit, and every change of it, by the transport's
// reader before the transport knows. It must not block: sub.mu is never held for
// long, and dials are started elsewhere.
func (c *connection) onLimit(uint32) {
	s := c.sub
	s.update(func(e *effects) {
		c.setLimitLocked()
		c.rememberLocked()
		s.serveLocked(e)
	})
}

// rememberLocked notes the limit for the time when the address has no connection,
// provided that c got as far as READY.
func (c *connection) rememberLocked() {
	if c.phase == phaseReady && c.tap.Attached() {
		limit := c.tap.Limit()
		c.sub.policy.channel.memory.note(c.sub.addr(), func(l *learned) { l.limit, l.limited = limit, true })
	}
}

// setLimitLocked computes what c may take, from what the server and the settings
// say now.
func (c *connection) setLimitLocked() {
	s := c.sub.policy.settings.Load()
	server, known := uint32(tap.Unlimited), c.tap.Attached()
	if known {
		server = c.tap.Limit()
	}
	soft, most := s.bounds(server, known)
	c.serverLimit.Store(noLimit)
	if server != tap.Unlimited {
		c.serverLimit.Store(int64(server))
	}
	c.softLimit.Store(soft)
	c.callLimit.Store(most)
}

// bounds is how many streams a connection takes before the next one is asked (soft), and
// how many at all (most). If the server allows at least leastProbed, one is kept free for
// probes. About a connection without a tap nothing is known, so it takes every stream, as
// on a plain channel.
func (s *settings) bounds(server uint32, known bool) (soft, most int64) {
	soft, most = noLimit, noLimit
	if server != tap.Unlimited {
		most = int64(server)
		if s.probeInterval > 0 && most >= leastProbed {
			most--
		}
		soft = most
	}
	if s.maxStreams > 0 {
		soft, most = min(soft, int64(s.maxStreams)), min(most, int64(s.maxStreams))
	}
	if most == noLimit && known && s.unlimitedStreams > 0 {
		soft = int64(s.unlimitedStreams)
	}
	if s.queueInTransport {
		most = noLimit
	}
	return soft, most
}

// countedConn is how a producer of the child policy reaches the connection. Its streams do
// not go through Pick, so they are counted here. They never wait.
type countedConn struct {
	grpc.ClientConnInterface

	conn *connection
}

// Invoke implements grpc.ClientConnInterface.
func (cc countedConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	cc.conn.streams.Add(1)
	defer cc.conn.release()
	return cc.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (cc countedConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	cc.conn.streams.Add(1)
	release := sync.OnceFunc(cc.conn.release)
	stream, err := cc.ClientConnInterface.NewStream(ctx, desc, method, opts...)
	if err != nil {
		release()
		return nil, err
	}
	context.AfterFunc(stream.Context(), release) //nolint:contextcheck // grpc-go cancels it when the stream ends
	return stream, nil
}

// countedBuilder builds a producer on a countedConn. It is comparable if builder
// is, as gRPC keeps one producer for equal builders.
type countedBuilder struct {
	builder balancer.ProducerBuilder
	conn    *connection
}

// Build implements balancer.ProducerBuilder.
func (b countedBuilder) Build(cc any) (balancer.Producer, func()) {
	if cci, ok := cc.(grpc.ClientConnInterface); ok {
		cc = countedConn{cci, b.conn}
	}
	return b.builder.Build(cc)
}
