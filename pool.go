package grpcpool

import (
	"context"

	"google.golang.org/grpc"
)

// Pool lends one channel to many callers at a time. Its methods may be called
// concurrently. Package shared has the implementation.
type Pool interface {
	// Get borrows the pool's channel. If there is none it opens one first. It waits
	// no longer than ctx allows. The caller must call Return on the result.
	//
	// The error matches ErrClosed, ErrConnectionNotOK, or the cause of ctx's end with
	// errors.Is, and carries a gRPC status.
	Get(ctx context.Context) (PoolClientConn, error)

	// Close closes the channel and makes every later Get return ErrClosed. Closing a
	// closed pool does nothing and returns nil.
	Close() error
}

// PoolClientConn is a lease: one borrowed use of a pool's channel. Its methods may
// be called concurrently.
type PoolClientConn interface {
	// Connection returns the borrowed channel, or nil after Return. Other callers
	// share the channel: never close it.
	Connection() *grpc.ClientConn

	// Return ends the lease. Later calls do nothing. End the streams that you began on
	// the channel first: the pool may close the channel when no lease is out.
	Return()
}

// ConnectionFactory makes and tests the channels of a pool. Its methods may be
// called concurrently and must return when ctx ends. A pool stops waiting for a call
// that does not, and reports it; what the call holds stays in use until it returns.
//
// A factory that makes channels with grpc.NewClient should bound their backoff with
// grpc.WithConnectParams. It otherwise grows to two minutes (connection-backoff.md in
// grpc/grpc's doc) and holds up RPCs on leases that are older than an outage. An
// InspectableFactory needs no such bound: the pool ends the backoff by its Inspector.
//
// How soon a pool dials again after an error of NewConnection depends on what the dial has
// cost the server. An error with a method ReachedServer() bool, itself or one that it wraps,
// tells whether the dial has reached the server; those of *Factory have it. A *net.OpError
// of a dial and a *net.DNSError mean that it did not. Any other error counts as one that
// did: then the pool stays away longer each time, up to ten seconds.
type ConnectionFactory interface {
	// NewConnection returns a channel that is connected and tested, or an error that
	// says why there is none.
	NewConnection(ctx context.Context) (*grpc.ClientConn, error)

	// ConnectionOk returns nil if conn's server has answered, or an error that says
	// why conn cannot be used. It must not close conn, which others are using.
	ConnectionOk(ctx context.Context, conn *grpc.ClientConn) error
}
