// Package integration holds no code, only tests: they run the pool against the
// servers that programs meet in production, over mutual TLS. It is a module of
// its own because etcd drags many others behind it.
//
// A real etcd runs inside the test process and needs nothing installed. nginx,
// haproxy and etcd's own command come from the operating system (Debian's
// packages nginx, haproxy and etcd-server); a test whose server is missing skips
// and says so, or fails if the environment variable GRPCPOOL_REQUIRE_ALL is set.
//
// To add a way of making channels to the tests of the stream limit, add a line to
// the table channelKinds.
package integration
