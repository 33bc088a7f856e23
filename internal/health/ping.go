// Package health is the health check of grpcpool.HealthPing: what each kind of answer
// says about a connection.
package health

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

// Ping calls grpc.health.v1.Health/Check; see grpcpool.HealthPing.
func Ping(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
	start := time.Now()
	health, how, err := ask(ctx, conn)
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
			break // nginx refuses a certificate like this, after the handshake: no call will succeed
		}
		return took, notGRPC(how, err)
	case answer.Unsent:
		if conn.GetState() == connectivity.Ready {
			return took, &answer.NoVerdictError{Err: err, Text: "the health check was not sent, which says nothing about the connection: " + Describe(err)}
		}
	case answer.None:
	}
	return took, fmt.Errorf("grpcpool: health check: %w", err)
}

// ask makes the call. It repeats it when a timeout of the program's service config has
// ended it before ctx.
func ask(ctx context.Context, conn *grpc.ClientConn) (health *healthpb.HealthCheckResponse, how answer.Answer, err error) {
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

// leastTimeout is the shortest timeout of a service config after which ask repeats the
// call.
const leastTimeout = 10 * time.Millisecond

// notGRPC is the error of a health check that HTTP answered and gRPC did not.
func notGRPC(how answer.Answer, err error) error {
	words, _, _ := strings.Cut(status.Convert(err).Message(), "\n") // what follows is the page
	text := how.String() + " (" + words + ")"
	if how.HTTP >= http.StatusInternalServerError {
		return &httpError{text + "; check the proxy there, and the server behind it", err}
	}
	text += "; check the address, or, if a proxy there forwards only some methods to a gRPC server, ping with one of them (WithPing)"
	return &answer.NoVerdictError{Err: err, Text: text}
}

// httpError says that what answered is not a gRPC server.
type httpError struct {
	text string
	err  error // gRPC's
}

func (e *httpError) Error() string { return "grpcpool: health check: " + e.text }

func (e *httpError) Unwrap() error { return e.err }
