package grpcpool

import (
	"context"

	"google.golang.org/grpc"
)

// Pool lends a channel to a server to many callers at a time. Its methods may
// be called concurrently.
type Pool interface {
	// Get borrows the pool's channel, opening it first when there is none. It
	// waits no longer than ctx. The caller must call Return on what it got.
	//
	// The error answers errors.Is for ErrClosed, for ErrConnectionNotOK, or for
	// the cause of ctx's end.
	Get(ctx context.Context) (PoolClientConn, error)

	// Close ends the pool: no lease is handed out from here on, and the channel
	// is closed. Closing a closed pool does nothing and returns nil.
	Close() error
}

// PoolClientConn is a lease: one borrowed use of a pool's channel. Its methods
// may be called concurrently.
type PoolClientConn interface {
	// Connection returns the borrowed channel, or nil once the lease has been
	// returned. The channel is shared: never close it.
	Connection() *grpc.ClientConn

	// Return ends the lease. Calling it again does nothing. Streams begun on the
	// channel should have ended by then: the pool may close it once nobody
	// holds a lease.
	Return()
}

// ConnectionFactory makes and tests the channels of a pool. Its methods may be
// called concurrently and must return when ctx ends: a pool leaves those alone that
// do not, and says so, but each keeps what it holds. One that makes channels with grpc.NewClient should bound their
// backoff (grpc.WithConnectParams), which else grows to two minutes and holds up
// RPCs on leases that are older than an outage; see Inspector.
type ConnectionFactory interface {
	// NewConnection returns a channel that is connected and has been tested, or
	// the reason why there is none.
	NewConnection(ctx context.Context) (*grpc.ClientConn, error)

	// ConnectionOk reports why conn cannot be used, or nil when its server has
	// answered. It must not close conn, which others are using.
	ConnectionOk(ctx context.Context, conn *grpc.ClientConn) error
}
