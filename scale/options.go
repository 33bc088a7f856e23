package scale

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"
)

const (
	defaultMaxConnections   = 10  // gRFC A105's
	defaultUnlimitedStreams = 128 // what other clients use for such servers
	defaultShrinkAfter      = time.Minute
	defaultProbeInterval    = time.Second
	defaultProbeTimeout     = time.Second
	defaultIdleInterval     = 30 * time.Second

	// longest is what a longer duration counts as, so that sums and multiples of it do
	// not overflow.
	longest = 365 * 24 * time.Hour
)

// settings are what a subchannel needs to know. Each has a dial option and a
// word in the policy's JSON.
type settings struct {
	maxConnections    int           // per subchannel, at least 1
	maxStreams        int           // per connection; 0: the server's limit
	unlimitedStreams  int           // per connection of a server without a limit, before growing; 0: never grow
	shrinkAfter       time.Duration // 0: never shrink
	probeInterval     time.Duration // 0: never probe
	idleProbeInterval time.Duration // of a connection that nobody uses; if it is shorter, probeInterval counts
	probeTimeout      time.Duration // more than 0
	holdGoAway        bool
	maxAge            time.Duration // 0: learned from the server's GOAWAYs; negative: none
	queueInTransport  bool
	unsupervised      bool // only scaling and the queue
}

func defaultSettings() settings {
	return settings{
		maxConnections:    defaultMaxConnections,
		unlimitedStreams:  defaultUnlimitedStreams,
		shrinkAfter:       defaultShrinkAfter,
		probeInterval:     defaultProbeInterval,
		idleProbeInterval: defaultIdleInterval,
		probeTimeout:      defaultProbeTimeout,
	}
}

// clientOptions holds the values of this package's dial options.
type clientOptions struct {
	settings

	logger        *slog.Logger // nil: grpc-go's own log
	observer      *Observer    // may be nil
	onEvent       []func(Event)
	replacers     []*Replacer
	memory        *Memory     // nil: the channel's own
	budget        *DialBudget // nil: none
	ask           func(context.Context, grpc.ClientConnInterface) error
	resolvers     []resolver.Builder
	serviceConfig *string
}

// option is a dial option of this package. grpc.NewClient sees the
// EmptyDialOption in it, which does nothing; NewClient calls apply.
type option struct {
	grpc.EmptyDialOption

	apply func(*clientOptions) error
}

func newOption(apply func(*clientOptions) error) grpc.DialOption {
	return option{apply: apply}
}

// gather applies those of plain that are this package's options.
func gather(plain []grpc.DialOption) (*clientOptions, error) {
	o := &clientOptions{settings: defaultSettings()}
	for _, opt := range plain {
		if own, ok := opt.(option); ok {
			if err := own.apply(o); err != nil {
				return nil, err
			}
		}
	}
	if o.unsupervised {
		o.probeInterval, o.maxAge, o.holdGoAway = 0, -1, false
	}
	return o, nil
}

// WithMaxConnections limits the connections to one address (one subchannel) to n, which
// must be 1 or more; the default is 10, and 1 turns scaling off. It is the
// maxConnectionsPerSubchannel of gRFC A105: a service config may ask for fewer
// connections, not for more. Two kinds of connection are not counted: one that is being
// dialled to replace another, and one that was replaced and is kept, without calls, to
// check the age that was learned (see [WithMaxConnectionAge]).
func WithMaxConnections(n int) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if n < 1 {
			return fmt.Errorf("scale: WithMaxConnections(%d): want 1 or more", n)
		}
		o.maxConnections = n
		return nil
	})
}

// WithMaxStreams limits the streams in flight on one connection to n, which must be 0
// or more. 0, the default, means the server's limit; so does an n above that limit. It
// also applies to a server that sets no limit.
func WithMaxStreams(n int) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if n < 0 {
			return fmt.Errorf("scale: WithMaxStreams(%d): want 0 (the server's limit) or more", n)
		}
		o.maxStreams = n
		return nil
	})
}

// WithStreamsPerUnlimitedConnection sets how many streams a connection carries before
// another is opened, where the server sets no limit (RFC 9113, section 6.5.2). n must be
// 0 or more; the default is 128, and 0 means a single connection to such a server. No
// call waits because of it: when no further connection can be opened, the connections
// that are there carry more streams.
func WithStreamsPerUnlimitedConnection(n int) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if n < 0 {
			return fmt.Errorf("scale: WithStreamsPerUnlimitedConnection(%d): want 0 (a single connection) or more", n)
		}
		o.unlimitedStreams = n
		return nil
	})
}

// WithShrinkAfter sets how long a connection beyond the first may be unused before it is
// closed. It may take up to a quarter of d longer. d must be 0 or more; the default is
// one minute, and 0 means never.
func WithShrinkAfter(d time.Duration) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if d < 0 {
			return fmt.Errorf("scale: WithShrinkAfter(%v): want 0 (never) or more", d)
		}
		o.shrinkAfter = min(d, longest)
		return nil
	})
}

// WithProbeInterval sets how often a connection in use has to prove that it works: once in
// every d, by a call that is answered on it or, if there is none, by a probe. A probe is
// an RPC of grpc.health.v1 or of [WithProbe]; any status from the server is an answer. d
// must be 0 or more; the default is one second. 0 turns off the probes, and with them
// the ejection of connections that do not answer, the check before the first call after a
// pause (see [WithIdleProbeInterval]) and the socket options.
//
// A connection is in use while calls are being begun on it. It is probed when 0.7 to 0.9
// of d have passed since the last proof, and with streams in flight when nothing has been
// received for 0.35 of d. Without new calls it is probed less often; see
// [WithIdleProbeInterval].
//
// If a probe is not answered within half of [WithProbeTimeout], the server's HTTP/2 is
// asked as well, by an empty SETTINGS frame, which a server acknowledges at once however
// busy its handlers are (RFC 9113, section 6.5.3). If it is acknowledged, the connection
// keeps its RPCs, and new calls go to a successor. If neither is answered within
// WithProbeTimeout, the connection takes no new calls and a successor is dialled, but it
// keeps its RPCs: the server may have stopped for a moment. If it answers after all, it
// takes new calls again. Until then they go to another connection or address, or wait,
// each until its deadline. The connection is ejected if its successor or another
// connection to the address is answered and it still is not a quarter of WithProbeTimeout
// later, or if nothing is answered for three times WithProbeTimeout: it is closed, and its
// RPCs fail with status Unavailable and the reason. So do then the calls that wait, if
// they have no other connection and do not wait for ready. A server that stops for up to
// 2.5 times WithProbeTimeout costs no RPC. A connection is not ejected while this process
// is short of CPU, or while data moves on the connection.
//
// Probes do not pass through the client's interceptors. They carry the metadata
// "grpcpool-probe: 1", by which a server can tell them apart. Where the server's limit is 10 or more, one
// stream of each connection is kept free for them. When every stream is taken, only
// HTTP/2 is asked.
//
// On a TCP connection the kernel is made to help: it sends keepalives after 5 s without
// data, one a second, and gives the connection up when ten of them are not acknowledged. On
// Linux, data that is not acknowledged for 15 s, or for six times WithProbeTimeout if that
// is longer, ends the connection too (TCP_USER_TIMEOUT). A connection whose dialler has set
// shorter times keeps them there.
func WithProbeInterval(d time.Duration) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if d < 0 {
			return fmt.Errorf("scale: WithProbeInterval(%v): want 0 (no probes) or more", d)
		}
		o.probeInterval = min(d, longest)
		return nil
	})
}

// WithIdleProbeInterval sets how rare probes become on a connection on which no calls are
// begun. After 5 s without one its interval doubles from that of [WithProbeInterval] up to
// d, and is at once the short one again when a call is begun. d must be 0 or more; the default is 30 seconds. If d
// is not longer than the interval of WithProbeInterval, 0 for instance, probes become no
// rarer than that.
//
// A stream that is merely open, on which the server may or may not send messages, holds the
// interval at 5 s, or at d if that is less, from half a minute after the last call was begun.
// Probes of several connections that are not in use are made together, up to 250 ms late.
//
// When nothing has proved a connection alive for 5 s, the next call waits until the server's
// HTTP/2 has acknowledged a SETTINGS frame, which takes one round trip, however busy the
// handlers are. So no call is sent on a connection that has died since it was last used. If
// there is no acknowledgement, the call goes to the successor. Such a call waits in the
// queue, until its context ends at most; with [WithQueueInTransport] no call waits for that.
func WithIdleProbeInterval(d time.Duration) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if d < 0 {
			return fmt.Errorf("scale: WithIdleProbeInterval(%v): want 0 (as often as WithProbeInterval) or more", d)
		}
		o.idleProbeInterval = min(d, longest)
		return nil
	})
}

// WithProbeTimeout sets how long the answer to a probe may take. d must be more than 0;
// the default is one second. Where recent answers were slow, or the last one came so late
// that the connection took no new calls meanwhile, a probe gets more time, up to six times
// d, so that a slow network is not mistaken for a dead one.
func WithProbeTimeout(d time.Duration) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if d <= 0 {
			return fmt.Errorf("scale: WithProbeTimeout(%v): want more than 0", d)
		}
		o.probeTimeout = min(d, longest)
		return nil
	})
}

// WithProbe sets the function that probes a connection; by default a probe is a Check of
// grpc.health.v1. f must not be nil.
//
// cc is the connection to be probed. f may make at most two unary RPCs on it, one after
// the other, with Invoke. ctx has no deadline; it ends when the result is no longer
// needed, and f must return then. The result means:
//
//   - nil, or an error that is or wraps a status sent by the server: the connection
//     works.
//   - any other error: it does not. It is replaced if its HTTP/2 answers, and ejected if
//     not.
//
// f is called concurrently for several connections.
func WithProbe(f func(ctx context.Context, cc grpc.ClientConnInterface) error) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if f == nil {
			return errors.New("scale: WithProbe(nil): want a function; leave the option out to use grpc.health.v1")
		}
		o.ask = f
		return nil
	})
}

// WithMaxConnectionAge sets the age, within a tenth of d, at which a connection is
// replaced: its successor is dialled first and takes the new calls, and the old
// connection is closed when its last stream has ended. Use it for servers and load
// balancers that close connections of a certain age, so that no call waits for a
// handshake then.
//
// With 0, the default, the age is learned from the server. When the server has ended two
// connections in a row with a GOAWAY without an error (RFC 9113, section 6.8), at about
// the same age of 1.5 s or more, later connections to that address are replaced at 0.7
// to 0.8 of that age. Now and then a connection that was replaced is kept, without
// calls, to see whether the server still ends it; if not, the age is forgotten. With a
// negative d, no connection is replaced because of its age.
func WithMaxConnectionAge(d time.Duration) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		o.maxAge = min(max(d, -1), longest)
		return nil
	})
}

// WithUnsupervised leaves the supervision of connections to grpc-go, for programs that want
// a channel like any other, which opens as many connections as the server's limit makes
// necessary, and the queue. Without supervision nothing is probed, suspected or ejected, no
// dial is given up or begun earlier than grpc-go would, no connection is replaced because
// of its age, and no socket option is set. The options for all that, [WithProbeInterval]
// among them, have no effect.
func WithUnsupervised() grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		o.unsupervised = true
		return nil
	})
}

// WithHoldGoAway keeps a connection in use, when the server begins to end it
// gracefully, until its successor has answered. Without it, a call may have to wait for
// a handshake the first time that a server ends a connection.
//
// A server that ends a connection gracefully sends two GOAWAY frames (RFC 9113, section
// 6.8), and accepts streams until the second. This option hides the first from grpc-go.
// If no successor can be dialled, the second GOAWAY, some seconds later, ends the
// connection as usual. It is off by default because it changes what grpc-go receives.
func WithHoldGoAway() grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		o.holdGoAway = true
		return nil
	})
}

// WithQueueInTransport makes a call that finds every connection full wait in the
// transport of the least loaded one, as on a channel of grpc.NewClient: bound to that
// connection and in no particular order. By default it waits in this package's queue,
// inside the Pick of the LB policy. Use this option if a call must not wait inside Pick
// for a stream. It still does while no connection may take calls: while every one of them is
// silent (see [WithProbeInterval]), or ended and its successor is being dialled.
func WithQueueInTransport() grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		o.queueInTransport = true
		return nil
	})
}

// WithLogger makes the channel log to l: one line at Warn for a fault, again every ten minutes
// while it lasts, and one at Info when there is a connection again. Every event (see
// [WithEvents]) is a line at Debug, at most one a second of a kind. What may be the begin of an
// outage is logged up to 6.5 s later, with the time at which it was. The attributes of a line,
// where they are known, are target, address, connection, took, age, outage, error, count,
// suppressed, and hint, which says what to do: in every line at Warn. Package shared describes
// them. By default only what keeps the channel from scaling is logged, to grpc-go's log. l must
// not be nil.
func WithLogger(l *slog.Logger) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if l == nil {
			return errors.New("scale: WithLogger(nil): want a logger; leave the option out to use grpc-go's log, or use slog.DiscardHandler to log nothing")
		}
		o.logger = l
		return nil
	})
}

// WithObserver makes o show the state of the channel. o must not be nil, and must be
// new: an Observer shows one channel, and a second NewClient with it is an error.
func WithObserver(o *Observer) grpc.DialOption {
	return newOption(func(opts *clientOptions) error {
		if o == nil {
			return errors.New("scale: WithObserver(nil): want an Observer")
		}
		opts.observer = o
		return nil
	})
}

// WithResolvers is grpc.WithResolvers for [NewClient]. grpc.WithResolvers works there
// too, with the versions of grpc-go that this package was tested with. The builders are
// added to those of other WithResolvers options; none of them may be nil. Without
// builders the option does nothing.
func WithResolvers(builders ...resolver.Builder) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		for i, b := range builders {
			if b == nil {
				return fmt.Errorf("scale: WithResolvers: builder %d of %d is nil", i+1, len(builders))
			}
		}
		o.resolvers = append(o.resolvers, builders...)
		return nil
	})
}

// WithDefaultServiceConfig is grpc.WithDefaultServiceConfig for [NewClient].
// grpc.WithDefaultServiceConfig works there too, with the versions of grpc-go that this
// package was tested with; if both are given, this one applies. js must be a service
// config in JSON.
func WithDefaultServiceConfig(js string) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if js == "" {
			return errors.New(`scale: WithDefaultServiceConfig(""): want a service config in JSON; leave the option out to have none`)
		}
		o.serviceConfig = &js
		return nil
	})
}
