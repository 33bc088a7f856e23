package grpcpool

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/internal/answer"
	"github.com/davidwartell/go-grpcpool/internal/reason"
)

// PingFunc asks the server behind conn for a sign of life and returns how long
// the answer took. It must return when ctx ends, must not close conn, and may be
// called concurrently. HTTP/2 PING frames are not a job for it: grpc-go's
// keepalive sends those, within what servers allow (gRFC A8); a PingFunc makes
// an RPC.
type PingFunc func(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error)

// HealthPing is a PingFunc that calls Check of grpc.health.v1.Health for the
// empty service, which stands for the whole server. It is a sign of life when the
// server answers SERVING, and when it answers by a status of its own, whichever:
// one that does not implement the service, wants a token, or is too busy for the
// question has answered all the same.
//
// Three answers are errors. Any other status of health, such as NOT_SERVING, has
// the code Unavailable. UNAVAILABLE itself, from the server or a proxy before it,
// asks the client to go elsewhere. And an HTTP error of 500 and above that is not
// gRPC's, such as a proxy's 502 or 503, means that there is no server behind it.
//
// No answer is an error too, as the call returned it. But a call that was not sent
// says nothing about the connection: every stream was taken, this program's
// credentials failed, or one of its interceptors. Nor does an HTTP answer below
// 500, such as 404: a proxy may lead other methods to a gRPC server. The error
// says so, and a channel of this package is then kept as it is, for the calls to
// show.
func HealthPing(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
	start := time.Now()
	health, how, err := askHealth(ctx, conn)
	took := time.Since(start)
	switch how.Kind {
	case answer.GRPC:
		if status.Code(err) == codes.Unavailable {
			break
		}
		if s := health.GetStatus(); err == nil && s != healthpb.HealthCheckResponse_SERVING {
			return took, status.Errorf(codes.Unavailable, "grpcpool: health check: the server reports %v", s)
		}
		return took, nil
	case answer.Reset:
		return took, nil
	case answer.HTTP:
		if reason.Of(err) == reason.ClientCertificate {
			break // nginx refuses it so, after the handshake: no call will fare better
		}
		return took, notGRPC(how, err)
	case answer.Unsent:
		if conn.GetState() == connectivity.Ready {
			return took, &answer.NoVerdictError{Err: err, Text: "the health check was not sent, which says nothing about the connection: " + describe(err)}
		}
	case answer.None:
	}
	return took, fmt.Errorf("grpcpool: health check: %w", err)
}

// askHealth makes the call. It makes it again when a timeout of the program's
// service config has ended it before ctx.
func askHealth(ctx context.Context, conn *grpc.ClientConn) (health *healthpb.HealthCheckResponse, how answer.Answer, err error) {
	for silent := false; ; {
		start := time.Now()
		var call answer.Call
		health = new(healthpb.HealthCheckResponse)
		err = conn.Invoke(ctx, healthpb.Health_Check_FullMethodName, &healthpb.HealthCheckRequest{}, health, call.Options()...)
		how = call.Of(err)
		silent = silent || how.Kind == answer.None
		if how.Kind == answer.Unsent && silent {
			how.Kind = answer.None // an earlier one was sent
		}
		late := status.Code(err) == codes.DeadlineExceeded && (how.Kind == answer.None || how.Kind == answer.Unsent)
		if !late || ctx.Err() != nil || time.Since(start) < leastTimeout {
			return health, how, err
		}
	}
}

// leastTimeout is the shortest timeout of a service config after which it makes
// sense to ask again.
const leastTimeout = 10 * time.Millisecond

// notGRPC is the error for a health check that was answered by HTTP alone.
func notGRPC(how answer.Answer, err error) error {
	words, _, _ := strings.Cut(status.Convert(err).Message(), "\n") // what follows is the page
	text := how.String() + " (" + words + ")"
	if how.HTTP >= http.StatusInternalServerError {
		return &httpError{text + "; check the proxy there, and the server behind it", err}
	}
	text += "; check the address, or, if a proxy there leads only some methods to a gRPC server, ping by one of them (WithPing)"
	return &answer.NoVerdictError{Err: err, Text: text}
}

// httpError says that what answered is no gRPC server.
type httpError struct {
	text string
	err  error // gRPC's
}

func (e *httpError) Error() string { return "grpcpool: health check: " + e.text }

func (e *httpError) Unwrap() error { return e.err }
