// Package proxy tests "grpcpool proxy", the command itself in a process of its own,
// between peers that nobody here wrote: gRPC's interoperability cases and etcd.
package proxy
