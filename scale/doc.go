// Package scale makes gRPC channels that open further connections to a server when
// the server's limit on concurrent streams makes them necessary, and that detect and
// replace connections that have stopped working. It is for programs that make many
// calls at once to one server, and for programs whose calls must not hang on a dead
// connection. [NewClient] takes the place of grpc.NewClient:
//
//	cc, err := scale.NewClient("dns:///orders.example.com:443", // was grpc.NewClient
//		grpc.WithTransportCredentials(credentials.NewTLS(nil)),
//		scale.WithMaxConnections(4), // for each address; the default is 10
//	)
//	if err != nil {
//		return err
//	}
//	defer cc.Close()
//	orders := pb.NewOrdersClient(cc)
//	order, err := orders.Get(ctx, &pb.GetRequest{Id: id})
//
// # What it does to connections
//
// Scaling. grpc-go uses one HTTP/2 connection for each address. When as many calls
// are in flight as the server allows (SETTINGS_MAX_CONCURRENT_STREAMS, 100 on many
// servers and load balancers), further calls wait inside the transport. With this
// package they wait in a queue, first in, first out, each until its own context
// ends, while further connections are dialled, up to [WithMaxConnections] for each
// address. This is what gRFC A105 describes. A server without a limit gets a further
// connection for every [WithStreamsPerUnlimitedConnection] calls in flight. A
// connection beyond the first is closed when it has been unused for
// [WithShrinkAfter].
//
// Health. A connection in use has to prove that it works, once in every
// [WithProbeInterval]: by a call that is answered on it, or by a probe, which is an RPC
// of grpc.health.v1 or of [WithProbe]. Any status from the server counts as an answer. On
// a connection that is not in use probes become rare ([WithIdleProbeInterval]), and the
// first call after a pause waits for one round trip in which the connection is proved.
// A connection that answers neither the probe nor an HTTP/2 SETTINGS frame within
// [WithProbeTimeout] takes no new calls until something is answered, and a successor is
// dialled. When the successor has answered instead, or after three timeouts without any
// answer, it is ejected: it is closed, and its RPCs fail with status Unavailable and the
// reason. One that answers only the SETTINGS frame keeps its RPCs, and new calls go to a
// successor.
//
// Dialling. While calls find no connection, dials that are refused follow each other
// soon, with pauses that grow to a second, instead of after gRPC's exponential backoff.
// After failures that cost the server a handshake, pauses grow to 10 s. A dial that does
// not reach the server is given up and begun anew. One whose handshake takes longer than
// 2.5 s goes on, so that it keeps its place in the queue of a busy server; calls that do
// not wait until the channel is ready are told of it. A [DialBudget] bounds the dials of
// any number of channels.
//
// Replacement. When a connection is about to end, its successor is dialled first and
// takes the new calls, so that no call waits for a handshake. The old connection is
// closed when its last stream has ended. That happens by age (see
// [WithMaxConnectionAge]), after a GOAWAY (see [WithHoldGoAway]), and when a
// [Replacer] asks for it.
//
// Load balancing stays as the service config says: its policy (pick_first,
// round_robin and so on) becomes the child of this package's policy, [Name], and
// each of its subchannels may have several connections.
//
// # What a server sees
//
// A connection on which calls are answered gets no probes. When the calls stop, it gets
// by default a health check about every second for 5 s, then after 2, 4, 8 and 16 s more,
// and every 30 s; one with an open stream gets one after each 0.35 s of silence, and half a minute
// after the last call was begun one every 5 s. That is about 130 probes an hour for a
// connection that nobody uses, and 750 for one with an open stream. A server that does
// not implement grpc.health.v1 answers Unimplemented, which is as good. The first call
// after 5 s without an answer is preceded by an empty HTTP/2 SETTINGS frame, which no
// handler sees.
//
// Every probe carries the metadata "grpcpool-probe: 1" and nothing of a caller's
// metadata, though the per-RPC credentials of the channel. A server's interceptor can
// leave probes out of its logs and quotas:
//
//	if len(metadata.ValueFromIncomingContext(ctx, "grpcpool-probe")) > 0 {
//		return handler(ctx, req)
//	}
//
// The probes do not pass through the client's interceptors. [WithProbeInterval] and
// [WithIdleProbeInterval] set how many there are. WithProbeInterval(0) turns them off, and
// with them the ejection of connections that do not answer; [WithUnsupervised] turns off
// all supervision.
//
// Where the server's limit is 10 streams or more, one stream of each connection is
// kept free for the probes. If the service config has a healthCheckConfig, gRPC's
// client-side health checking uses a stream of the oldest connection.
//
// # Options
//
// The functions named With... in this package return dial options for [NewClient];
// grpc.NewClient ignores them. An argument that is nil or out of range is an error of
// NewClient that names the option, such as
//
//	scale: WithMaxStreams(-1): want 0 (the server's limit) or more
//
// Durations above a year count as a year. Where an option that takes one value is
// given more than once, the last one counts.
//
// # What is experimental under it
//
// grpc-go marks the following as experimental or deprecated, and may change it in any
// minor release. This package is tested with grpc-go 1.82.1 and 1.85.
//
//   - The packages balancer, resolver and serviceconfig, with balancer.Producer, by
//     which a probe is sent on one particular connection; mem.BufferPool; and
//     grpc.EmptyDialOption. If one of them changes, this package does not compile.
//   - The field CredsBundle of balancer.NewSubConnOptions, by which this package gets
//     at the bytes of a connection. It is deprecated. If grpc-go ignores it, a channel
//     works as one of grpc.NewClient does, with one connection for each address, and
//     logs a warning. Most of this package's tests then fail.
//   - The unexported fields of dial options that hold what grpc.WithResolvers and
//     grpc.WithDefaultServiceConfig were given, read by reflection. If they cannot be
//     read, NewClient returns an error for a default service config and says to use
//     [WithDefaultServiceConfig] of this package instead; [WithResolvers] is the other
//     replacement. TestTheDialOptionsOfThisGRPCCanBeRead and
//     TestEveryDialOptionOfGRPCCanBeRead notice.
//   - The text of a few of grpc-go's errors, by which an answer in HTTP, a RST_STREAM
//     and the reason of a failed dial are recognized. If it changes, errors explain
//     less. The tests of the internal packages answer and reason notice.
//
// The folder conformance runs grpc-go's own tests on channels of this package, to
// find differences in behaviour.
//
// # When grpc-go implements gRFC A105 itself
//
// WithMaxConnections(1) then leaves the number of connections to grpc-go; everything
// else in this package goes on working.
//
// How the package works inside is described in DESIGN.md.
package scale
