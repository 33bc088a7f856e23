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
	defaultUnlimitedStreams = 128 // what restate and others settled on for such servers
	defaultShrinkAfter      = time.Minute
	defaultProbeInterval    = time.Second
	defaultProbeTimeout     = time.Second
)

// settings are what a subchannel needs to know. Each has a dial option and a
// word in the policy's JSON.
type settings struct {
	maxConnections   int           // per subchannel, at least 1
	maxStreams       int           // per connection; 0: the server's limit
	unlimitedStreams int           // per connection of a server without a limit, before growing; 0: never grow
	shrinkAfter      time.Duration // 0: never shrink
	probeInterval    time.Duration // 0: never probe
	probeTimeout     time.Duration // more than 0
	holdGoAway       bool
	maxAge           time.Duration // 0: what the server's GOAWAYs tell; negative: none
	queueInTransport bool
}

func defaultSettings() settings {
	return settings{
		maxConnections:   defaultMaxConnections,
		unlimitedStreams: defaultUnlimitedStreams,
		shrinkAfter:      defaultShrinkAfter,
		probeInterval:    defaultProbeInterval,
		probeTimeout:     defaultProbeTimeout,
	}
}

// clientOptions is what the dial options of this package add up to.
type clientOptions struct {
	settings

	logger        *slog.Logger // nil: grpc-go's own log
	observer      *Observer    // may be nil
	onEvent       []func(Event)
	replacers     []*Replacer
	memory        *Memory // nil: the channel's own
	ask           func(context.Context, grpc.ClientConnInterface) error
	resolvers     []resolver.Builder
	serviceConfig *string
}

// option is a dial option of this package. grpc.NewClient sees the
// EmptyDialOption in it, which does nothing; [NewClient] calls apply.
type option struct {
	grpc.EmptyDialOption

	apply func(*clientOptions) error
}

func newOption(apply func(*clientOptions) error) grpc.DialOption {
	return option{apply: apply}
}

// gather adds up this package's options among plain ones.
func gather(plain []grpc.DialOption) (*clientOptions, error) {
	o := &clientOptions{settings: defaultSettings()}
	for _, opt := range plain {
		if own, ok := opt.(option); ok {
			if err := own.apply(o); err != nil {
				return nil, err
			}
		}
	}
	return o, nil
}

// WithMaxConnections bounds the connections of one subchannel, which is one address
// of the server; 1 means never to scale. The default is 10. Not counted are a successor
// on its way, and one replaced connection that is observed, without calls, to see
// whether the server really ends it at the age that was learned. A service config may
// ask for fewer, not for more (gRFC A105, "Configuration"). n below 1 is an error
// of [NewClient].
//
// Like every dial option of this package it has an effect in [NewClient] only;
// grpc.NewClient ignores it.
func WithMaxConnections(n int) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if n < 1 {
			return fmt.Errorf("scale: WithMaxConnections(%d): want 1 or more", n)
		}
		o.maxConnections = n
		return nil
	})
}

// WithMaxStreams bounds the streams of one connection below the server's limit; 0,
// the default, means the server's limit. It also holds on servers that have no
// limit. n below 0 is an error of [NewClient].
func WithMaxStreams(n int) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if n < 0 {
			return fmt.Errorf("scale: WithMaxStreams(%d): want 0, for the server's limit, or more", n)
		}
		o.maxStreams = n
		return nil
	})
}

// WithStreamsPerUnlimitedConnection says how many streams one connection to a server without a
// limit takes before another connection is opened; 0 means that such a server
// gets one connection. The default is 128. It never makes a call wait: when no
// more connections can be had, those that are there take the streams. n below 0
// is an error of [NewClient].
func WithStreamsPerUnlimitedConnection(n int) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if n < 0 {
			return fmt.Errorf("scale: WithStreamsPerUnlimitedConnection(%d): want 0, for one connection, or more", n)
		}
		o.unlimitedStreams = n
		return nil
	})
}

// WithShrinkAfter says how long a connection beyond the first goes unused before it
// is closed; up to a quarter of d is added. The default is one minute, 0 means
// never. d below 0 is an error of [NewClient].
func WithShrinkAfter(d time.Duration) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if d < 0 {
			return fmt.Errorf("scale: WithShrinkAfter(%v): want 0, for never, or more", d)
		}
		o.shrinkAfter = d
		return nil
	})
}

// WithProbeInterval says within what time each connection is proved alive: by calls
// that are answered on it, and when there are none, by an RPC, which
// grpc.health.v1 answers, or says that it does not know, or [WithProbe]'s. A
// connection that is idle is probed after 0.7 to 0.9 of d without a proof, one
// that has streams in flight after 0.35 of d without a byte.
//
// Any status from the server is an answer. When there is none within half of
// [WithProbeTimeout], the server's HTTP/2 is asked too, by an empty SETTINGS, which it
// has to acknowledge at once whatever is busy behind it. A connection that
// acknowledges it keeps its RPCs, and new ones go to a successor. One that answers
// neither within WithProbeTimeout is ejected: its RPCs fail with status Unavailable,
// which says why, and new ones go elsewhere. It is not ejected while this process
// is short of CPU, or while data moves on it.
//
// The default is one second, 0 turns all that off. d below 0 is an error of
// [NewClient]. Probes are streams of their own, past interceptors, and of a server
// whose limit is 10 or more one stream is kept free for them. On a connection whose
// streams are all taken, only HTTP/2 is asked.
func WithProbeInterval(d time.Duration) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if d < 0 {
			return fmt.Errorf("scale: WithProbeInterval(%v): want 0, for no probes, or more", d)
		}
		o.probeInterval = d
		return nil
	})
}

// WithProbeTimeout says how long a probe may take. The default is one second. Where
// answers have been slow lately a probe gets up to six times as long, so that a
// slow network is not taken for a dead one. d of 0 or less is an error of
// [NewClient].
func WithProbeTimeout(d time.Duration) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if d <= 0 {
			return fmt.Errorf("scale: WithProbeTimeout(%v): want more than 0", d)
		}
		o.probeTimeout = d
		return nil
	})
}

// WithProbe has f probe a connection in place of grpc.health.v1. cc is that one
// connection, to be used for at most two unary RPCs, one after the other, by Invoke. f
// must return when ctx ends, which has no deadline: it ends when the answer is not
// wanted any more. nil means that the connection is alive, and so does an error that is, or
// wraps, a gRPC status from the server. Any other error says that f does not like the
// connection: it is replaced if its HTTP/2 answers, and ejected if not. f is called
// concurrently for several connections. A nil f is an error of [NewClient].
func WithProbe(f func(ctx context.Context, cc grpc.ClientConnInterface) error) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if f == nil {
			return errors.New("scale: WithProbe(nil): leave the option out for grpc.health.v1")
		}
		o.ask = f
		return nil
	})
}

// WithMaxConnectionAge has connections replaced when they are about as old as d, to
// within a tenth: the successor is dialled first, takes the new calls, and the old
// connection is closed when its last stream has ended. It is for servers and load
// balancers that end connections by age, and has no call wait for a handshake then.
//
// The default, 0, learns the age from the server: once it has ended two connections
// in a row by GOAWAY (RFC 9113, section 6.8) without an error and at about the same
// age of 1.5 s or more, later connections to the address are replaced at 0.7 to 0.8
// of that. Now and then one that was replaced is kept, without calls, to see whether
// the server ends it; the age is forgotten if not. A negative d replaces none.
func WithMaxConnectionAge(d time.Duration) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		o.maxAge = max(d, -1)
		return nil
	})
}

// WithHoldGoAway has a connection that the server begins to end gracefully go on until
// its successor has answered: the first of the two GOAWAYs (RFC 9113, section 6.8) is
// held back from gRPC, as the server still takes streams then. So no call waits for
// a handshake, even the first time that a server ends a connection. When no
// successor can be had the second GOAWAY, some seconds later, is the end as always.
// It changes what gRPC gets to see, so it is not the default.
func WithHoldGoAway() grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		o.holdGoAway = true
		return nil
	})
}

// WithQueueInTransport keeps calls from waiting for a stream in the channel. A call
// that finds every connection full goes to the least loaded one and waits there,
// as on a plain channel: bound to that connection, in no order. It is for
// programs that must not have a call wait inside an LB policy's Pick.
func WithQueueInTransport() grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		o.queueInTransport = true
		return nil
	})
}

// WithLogger sends what the channel has to say to l: rare warnings, mostly about
// a server or an option that keeps the channel from scaling. By default it goes
// to grpc-go's log. A nil l is an error of [NewClient].
func WithLogger(l *slog.Logger) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if l == nil {
			return errors.New("scale: WithLogger(nil): leave the option out for grpc-go's log, or use slog.DiscardHandler")
		}
		o.logger = l
		return nil
	})
}

// WithObserver makes o show the channel. An Observer shows one channel; a second
// [NewClient] with it is an error.
func WithObserver(o *Observer) grpc.DialOption {
	return newOption(func(opts *clientOptions) error {
		if o == nil {
			return errors.New("scale: WithObserver(nil): want an Observer")
		}
		opts.observer = o
		return nil
	})
}

// WithResolvers is grpc.WithResolvers for use with [NewClient]. The original
// works too, with the versions of grpc-go that this package was tested with.
func WithResolvers(builders ...resolver.Builder) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		for _, b := range builders {
			if b == nil {
				return errors.New("scale: WithResolvers: one of the builders is nil")
			}
		}
		o.resolvers = append(o.resolvers, builders...)
		return nil
	})
}

// WithDefaultServiceConfig is grpc.WithDefaultServiceConfig for use with
// [NewClient]. The original works too, with the versions of grpc-go that this
// package was tested with; when both are given, this one counts.
func WithDefaultServiceConfig(js string) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		o.serviceConfig = &js
		return nil
	})
}
