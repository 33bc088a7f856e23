package grpcpool

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool/scale"
)

// InspectableFactory is a ConnectionFactory whose channels can be inspected. A pool
// with such a factory shows the connections of its channels in its Stats, reports
// their events, and ends the backoff of a channel under old leases when another
// channel has proved that the network is back. *Factory is an InspectableFactory.
//
// Only those who write a ConnectionFactory need this interface.
type InspectableFactory interface {
	ConnectionFactory

	// NewInspectedConnection is NewConnection, and returns an Inspector of the channel
	// as well. The channel reports its events to the func of EventsFromContext, if
	// there is one. Pools call this method instead of NewConnection.
	NewInspectedConnection(ctx context.Context) (*grpc.ClientConn, Inspector, error)
}

// ChannelFactory is an InspectableFactory that can make a channel before it connects it. A
// pool over one makes its RPCs on the channel, connected or not: gRPC decides whether they
// wait, fail, are retried, or time out, and the channel's interceptors and stats handlers see
// each of them. *Factory is a ChannelFactory.
//
// Only those who write a ConnectionFactory need this interface. One that embeds a *Factory
// has its methods, so it has to have its own NewChannel and Connect to take part in how
// channels are made: pools call these instead of NewConnection, except for a channel that
// replaces another.
type ChannelFactory interface {
	InspectableFactory

	// NewChannel returns a channel that is not connected, at once, and its Inspector. The
	// channel reports its events to the func of EventsFromContext, if there is one.
	NewChannel(ctx context.Context) (*grpc.ClientConn, Inspector, error)

	// Connect connects a channel of NewChannel and tests it, as NewConnection does. RPCs may
	// run on the channel meanwhile. If it fails, the channel is as usable as before.
	Connect(ctx context.Context, conn *grpc.ClientConn, inspector Inspector) error
}

// Inspector shows the subchannels and connections of one channel. Its methods may be
// called concurrently, and after the channel has been closed. They must not block.
// *scale.Observer is an Inspector.
type Inspector interface {
	// Snapshot returns the channel's subchannels and connections as they are now.
	Snapshot() scale.Channel

	// RetryNow ends the backoff of subchannels that wait to dial again.
	RetryNow()
}

// Supervisor is an Inspector of a channel that watches its own connections, and replaces
// those that fail. If the Inspector of NewInspectedConnection is a Supervisor, the pool
// leaves to the channel what the channel does by itself: it does not test what the channel
// has proved, tests nothing while leases are out and no connection is lost, sleeps while
// nothing happens, and dials no other channel while this one makes a new connection. The
// channel has to report its events (see InspectableFactory). *scale.Observer is a
// Supervisor.
type Supervisor interface {
	Inspector

	// Supervised reports whether the channel watches its connections now. While it is
	// false, the pool treats the channel like one that cannot be inspected.
	Supervised() bool

	// LastProof returns the latest time at which a connection that takes calls is known
	// to have been alive, or the zero Time if there is no such connection.
	LastProof() time.Time
}

var (
	_ ChannelFactory = (*Factory)(nil)
	_ Supervisor     = (*scale.Observer)(nil)
	_ Supervisor     = (*watched)(nil)
)
