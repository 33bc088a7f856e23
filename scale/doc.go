// Package scale makes a gRPC channel that opens as many connections to an address
// as the server's limit on concurrent streams makes necessary, and closes them
// when they are not needed any more.
//
// grpc-go runs one HTTP/2 connection per address. When the server's
// SETTINGS_MAX_CONCURRENT_STREAMS is reached, 100 on many servers and load
// balancers, further calls wait in the transport, unseen and in no order. gRFC
// A105 describes the cure. Here it is for grpc-go, one word away:
//
//	cc, err := scale.NewClient(target, opts...) // was grpc.NewClient
//
// # A call's way
//
// [NewClient] puts the LB policy [Name] around the policy that the service config
// names. That one, the child, picks a subchannel, as it would without us. Our
// picker takes a stream on the oldest of the subchannel's connections that has one
// to spare. If none has, the call waits in the subchannel's queue, first in, first
// out, on its own goroutine and its own context, and the subchannel grows: it dials
// as many connections as the calls that wait need, all at once, up to
// [WithMaxConnections]. A call that ends gives its stream to the first that waits. One
// whose context ends first gets the context's status, with what it waited for.
//
// The server's limit comes off the wire (package internal/tap): it is known before
// the first call, and every change counts at once. A server without a limit gets a
// further connection for every [WithStreamsPerUnlimitedConnection] calls at once, and nobody waits.
// A connection beyond the first that is not used for [WithShrinkAfter] is closed.
//
// A connection that sent GOAWAY takes no new calls, and its successor is dialled
// before the transport has noticed. A dial that fails waits for gRPC's backoff, and
// while other connections are there no dial is tried meanwhile. Connections that
// end before they were of any use are backed off from too, which gRPC does not do.
//
// # The watch
//
// Every connection is proved alive within [WithProbeInterval], by calls that are answered
// on it or by a probe, an RPC on that very connection. One that does not answer is
// ejected, after its HTTP/2 was asked too and this process was found to be well: see
// probe.go, verdict.go and witness.go. Dials are supervised too: while calls find no connection
// they start about one a second, whatever gRPC's backoff, and none hangs: see
// dialling.go. A connection whose end can be foreseen is replaced before, successor
// first, so that no call waits for a handshake: by age, see [WithMaxConnectionAge], or
// when a [Replacer] asks for it.
//
// # Files
//
//	client.go       NewClient, and what outlives the policy of a channel that goes idle
//	options.go      dial options; dialoptions.go reads gRPC's own
//	resolver.go     how the policy gets into the service configs of resolvers
//	config.go       the policy's own config
//	policy.go       the LB policy; childpolicy.go its child, and the change to another
//	picker.go       a call's way through both
//	subchannel.go   one address: what the child sees as one SubConn
//	states.go       what the states of connections make of the subchannel's
//	growth.go       more connections, fewer connections, and backing off
//	queue.go        the calls that wait; priority.go those that go first
//	probe.go        the watch over a connection
//	verdict.go      what is made of a probe without an answer, up to ejection
//	witness.go      whether this process ran well enough to tell
//	dialling.go     the supervision of dials
//	ages.go         at what age a server ends connections, and whether it really does
//	replace.go      replacing connections before they end
//	succession.go   what a connection has to show before it takes another's place
//	draining.go     not trusting those whose server shuts down
//	memory.go       what is remembered of an address
//	event.go        what is told of all this
//	addresses.go    other addresses for a subchannel that lives on
//	connection.go   one connection and the count of its streams
//	health.go       gRPC's client-side health checking, on the oldest connection
//	snapshot.go     what can be seen from outside
//	tasks.go        goroutines and timers, and who waits for them
//
// # Invariants
//
// One SubConn of gRPC is one connection: it is shut down when its connection ends,
// so that the streams of two connections are never counted as one's.
//
// A stream is taken and given back with one atomic operation each, and a pick
// allocates nothing. The count and the bit that closes a connection to new streams
// share one word: a connection is shrunk away only while it has no stream, and
// whoever has picked it has one.
//
// A connection is retired only after its successor has answered. It is killed only by
// the watch, when neither the server nor its HTTP/2 answers, and then every RPC on it
// is told so.
//
// Whenever a connection ends, gRPC gets a new picker, even when nothing else has
// changed: a call that picked the lost connection waits for one. The order is to
// take the connection from the list, to publish, and only then to shut the SubConn
// down.
//
// The child hears the states of a subchannel as if it had one connection, on
// gRPC's goroutine for the channel and in the steps that every policy knows.
//
// # Locks
//
// In the order in which they may be taken:
//
//	childPolicy.calls   while the child is told a state, or closed
//	policy.mu           while gRPC is handed a picker
//	subchannel.mu       never while gRPC or the child is called
//	tasks.mu, channel.mu, Memory.mu, Replacer.mu, event.Queue.mu   innermost
//
// No lock is held during I/O. The tap calls from the transport's reader; it takes
// subchannel.mu for a few assignments, and everything else happens elsewhere.
//
// # What it rests on
//
// The experimental parts of grpc-go's API: balancer, resolver, serviceconfig,
// mem.BufferPool, grpc.EmptyDialOption, and the deprecated field
// NewSubConnOptions.CredsBundle, which is the one way to know the connection of a
// SubConn. Producers, which are the one way to make an RPC on it. And, by reflection,
// the unexported fields that hold what grpc.WithResolvers and
// grpc.WithDefaultServiceConfig were given, also in options that are wrapped; if they
// are gone some day, NewClient refuses a default service config that it cannot read,
// and [WithResolvers] and [WithDefaultServiceConfig] of this package do the same. The
// package was made for grpc-go 1.85, and works with 1.82.1 and newer.
//
// A stream that gRPC opens without a pick counts too: those of producers, and one
// for a health watch. A server that does not know the health service costs the
// oldest connection one stream, since the two cases look alike from here.
//
// # When grpc-go does it itself
//
// gRFC A105's "Implemented in" will then name Go, and grpc-go's release notes
// maxConnectionsPerSubchannel. Growth can be left to it from that day on: with
// WithMaxConnections(1) this package opens one SubConn per address and goes on with the
// rest, the order of waiting calls, their errors, and the snapshot.
package scale
