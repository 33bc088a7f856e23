package grpcpool

import (
	"context"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool/scale"
)

// Channel is what a channel looked like inside at one time: its subchannels, and
// their connections with their streams and limits.
type Channel = scale.Channel

// Inspector is a ConnectionFactory that gives its channels out with a hold on
// their inside. A pool whose factory is one shows the inside in its Stats, and
// ends the backoff of a channel under old leases when it has proof that the
// network is back. Factory is one.
type Inspector interface {
	ConnectionFactory

	// NewInspectedConnection is NewConnection, and the inside of the channel.
	NewInspectedConnection(ctx context.Context) (*grpc.ClientConn, Inside, error)
}

// Inside is a hold on what is inside a channel. Its methods may be called
// concurrently, and after the channel has been closed, and must not block.
// *scale.Observer is one.
type Inside interface {
	// Snapshot shows the channel's subchannels and connections.
	Snapshot() Channel

	// RetryNow ends the backoff of subchannels that wait to dial again.
	RetryNow()
}

var (
	_ Inspector = (*Factory)(nil)
	_ Inside    = (*scale.Observer)(nil)
)
