// Package grpcpool is the vocabulary of go-grpcpool: what a pool of gRPC client
// connections is (Pool, PoolClientConn), how channels are made and tested
// (ConnectionFactory, PingFunc), and the factories that most programs need:
// NewMutualTLSFactory, NewMutualTLSFactoryFromFiles for certificates that are renewed
// in their files, and NewFactory for any other credentials. The pool itself is in
// package shared.
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
// The words are gRPC's own. A channel is a *grpc.ClientConn; a connection is one
// HTTP/2 transport under it; a stream is one RPC on a connection; a lease is one
// borrowed use of the pool's channel.
package grpcpool
