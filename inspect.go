package grpcpool

import (
	"context"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool/scale"
)

// Channel is what a channel looked like inside at one time: its subchannels, and
// their connections with their streams and limits.
type Channel = scale.Channel

// Inspector is a ConnectionFactory that can show what is inside its channels. A
// pool whose factory is one shows it in its Stats. Factory is one.
type Inspector interface {
	ConnectionFactory

	// NewInspectedConnection is NewConnection with a func that looks into the
	// channel. The func may be called concurrently, and after the channel has
	// been closed; it must not block.
	NewInspectedConnection(ctx context.Context) (*grpc.ClientConn, func() Channel, error)
}

var _ Inspector = (*Factory)(nil)
