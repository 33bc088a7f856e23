package grpcpool

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool/internal/health"
)

// PingFunc asks the server behind conn for a sign of life and returns how long
// the answer took. It must return when ctx ends, must not close conn, and may be
// called concurrently. It should make an RPC, and leave HTTP/2 PING frames to grpc-go's
// keepalive, which sends no more of them than servers allow (gRFC A8).
//
// An error means that conn must not be used. So take any answer for a sign of life, also
// that the server wants a token, is too busy, or does not know the method: another
// connection would get the same. Return an error for an answer only if no caller could
// use a server that gives it.
//
// A Factory calls it with a context that has no outgoing metadata, so that what one caller
// sends is not sent with the tests of a channel that others share. It may add its own.
type PingFunc func(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error)

// HealthPing is a PingFunc that calls Check of grpc.health.v1.Health for the
// empty service, which means the whole server. The server is alive if it answers, with any
// status of gRPC or of health: also one that does not implement the service, wants a
// token, is too busy, is UNAVAILABLE or NOT_SERVING has answered, and calls on a plain
// channel would reach it. WithHealthCheck also asks whether it serves.
//
// Two answers are errors, as no gRPC server has given them: an HTTP error of 500 and above
// that is not gRPC's, such as a proxy's 502 or 503, means that there is no server behind
// it, and an HTTP page that refuses the client's certificate, as nginx has one, that no
// call would be answered.
//
// No answer is an error too, as the call returned it. But a call that was not sent says
// nothing about the connection: every stream was taken, or the program's own credentials
// or interceptors failed. Nor does an HTTP answer below 500, such as 404: a proxy may
// forward other methods to a gRPC server. The error says so, and a Factory then returns
// the channel although the ping was not answered.
//
// The call is not compressed, is encoded as protobuf and does not wait for a connection,
// whatever the program has set as the default for its calls.
func HealthPing(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
	return health.Ping(ctx, conn)
}

// servicePing is the PingFunc of WithHealthCheck.
func servicePing(service string) PingFunc {
	return func(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
		return health.Check(ctx, conn, service)
	}
}
