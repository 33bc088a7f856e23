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
type PingFunc func(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error)

// HealthPing is a PingFunc that calls Check of grpc.health.v1.Health for the
// empty service, which means the whole server. The server is alive if it answers SERVING,
// or with any gRPC status of its own: also one that does not implement the service, wants
// a token, or is too busy has answered.
//
// Three answers are errors. A status of health other than SERVING has the code
// Unavailable. UNAVAILABLE itself, from the server or a proxy before it, asks the client
// to go elsewhere. And an HTTP error of 500 and above that is not gRPC's, such as a
// proxy's 502 or 503, means that there is no server behind it.
//
// No answer is an error too, as the call returned it. But a call that was not sent says
// nothing about the connection: every stream was taken, or the program's own credentials
// or interceptors failed. Nor does an HTTP answer below 500, such as 404: a proxy may
// forward other methods to a gRPC server. The error says so, and a Factory then returns
// the channel although the ping was not answered.
func HealthPing(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
	return health.Ping(ctx, conn)
}
