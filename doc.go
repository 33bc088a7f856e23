// Package grpcpool makes channels to a gRPC server and tests them, for the pool in
// package shared. A pool lends one channel to many callers, and package scale gives the
// channel as many connections as the server's limit on streams makes necessary.
//
//	factory, err := grpcpool.NewMutualTLSFactory(ca, cert, key, "api.example.com:443", 30*time.Second, 10*time.Second, nil)
//	...
//	pool := shared.New(factory, 5*time.Minute)
//	defer pool.Close()
//
//	conn, err := pool.Get(ctx)
//	...
//	defer conn.Return()
//	client := pb.NewGreeterClient(conn.Connection())
//
// NewMutualTLSFactoryFromFiles is for certificates that are renewed in their files,
// NewIdentityFactory for any identity of package identity, and NewFactory for all other
// credentials. Pool, PoolClientConn, ConnectionFactory and PingFunc are the interfaces
// between a program, a pool and a factory.
//
// The words are gRPC's own. A channel is a *grpc.ClientConn; a connection is one
// HTTP/2 transport under it; a stream is one RPC on a connection; a lease is one
// borrowed use of the pool's channel.
package grpcpool
