// Package shared is a pool that lends one channel to many callers at a time.
// Their RPCs multiplex over the channel's connections; nobody waits for another
// to give a connection back.
//
// The pool opens the channel when it is first wanted and closes it when nobody
// has held a lease for the idle timeout. It tests the channel before lending it
// when nothing has proved it alive for half a second, and in the background
// while leases are out. A channel that fails its test is replaced, never closed
// under a lease: the replacement is dialled and tested first, new leases go to
// it, and the last lease out closes the old channel.
//
// *Pool is a grpc.ClientConnInterface, so generated clients work on it directly
// and take and return the lease around each call:
//
//	client := pb.NewGreeterClient(pool)
//
// What happens to a pool and to the connections inside its channels is told as
// events, in order: to hooks (WithEvents, WithHooks), to the log, and, the latest,
// in Stats.
//
// Lock order: no two of Pool.mu, borrows.mu, events.mu and inside.mu are held
// together, and none is held over a dial, a test, a close, a log line or a
// callback.
package shared
