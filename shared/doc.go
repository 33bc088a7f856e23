// Package shared is a pool for one server: it lends one gRPC channel to many callers
// at a time.
//
//	factory, err := grpcpool.NewFactory("dns:///orders:443", credentials.NewTLS(nil))
//	if err != nil {
//		return err
//	}
//	pool := shared.New(factory, 5*time.Minute) // closes the channel after 5 idle minutes
//	defer pool.Close()
//
//	client := pb.NewOrdersClient(pool) // borrows the channel for each call
//	order, err := client.Get(ctx, &pb.GetRequest{Id: "4711"})
//
// [Pool.Get] borrows the channel for several calls:
//
//	lease, err := pool.Get(ctx)
//	if err != nil {
//		return err
//	}
//	defer lease.Return()
//	client := pb.NewOrdersClient(lease.Connection())
//
// # What the pool does
//
// The pool opens the channel when a caller first needs it, and closes it when no lease
// has been out for the idle timeout. RPCs of all callers share the channel's
// connections, so no caller waits until another returns a lease.
//
// The pool tests the channel before Get lends it if nothing has proved it alive for
// half a second, or if no lease has been out for 5 s. If the test fails, the pool dials and
// tests another channel, lends that one from then on, and closes the old one when its last
// lease comes back. It never closes a channel under a lease, except when Close has waited
// for the drain timeout.
//
// A call made on the pool is a call on the channel, connected or not: gRPC decides whether it
// waits, fails or is tried again, and the channel's interceptors and stats handlers see it. The
// pool tests nothing for it, and dials nothing that the channel does not dial.
//
// A channel of a [grpcpool.Factory] watches its own connections, and replaces those that
// are dead (see package scale). The pool relies on that: it does not test what the channel
// has proved, and while the channel makes a new connection Get waits, ten seconds at first,
// before the pool dials another channel. While nothing happens, such a pool costs nothing
// beyond its channel. Channels whose probes are turned off are tested in the background while
// leases are out. Those of a factory that is no [grpcpool.ChannelFactory] are tested before
// calls too.
//
// # What the pool reports
//
// What happens to the pool and to the connections in its channels is reported as
// events, in order: to hooks ([WithEvents], [WithHooks]) and to the log ([WithLogger]).
// [Pool.Stats] has the latest events, gauges and counters; [Pool.Holders] names the
// places in the program that hold leases.
//
// # Mistakes
//
// A nil or out-of-range argument of [New] or of an option does not panic. The pool is
// made, and every Get, Invoke and NewStream returns an error that names each mistake.
package shared
