package grpcpool

import (
	"context"

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

// Inspector shows the subchannels and connections of one channel. Its methods may be
// called concurrently, and after the channel has been closed. They must not block.
// *scale.Observer is an Inspector.
type Inspector interface {
	// Snapshot returns the channel's subchannels and connections as they are now.
	Snapshot() scale.Channel

	// RetryNow ends the backoff of subchannels that wait to dial again.
	RetryNow()
}

var (
	_ InspectableFactory = (*Factory)(nil)
	_ Inspector          = (*scale.Observer)(nil)
)
