// Package health is the health check of grpcpool.HealthPing and grpcpool.WithHealthCheck:
// what each kind of answer says about a connection.
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
	"github.com/davidwartell/go-grpcpool/internal/told"
)

// Ping asks for the health of the whole server, and takes any answer of the server as a
// sign of life; see grpcpool.HealthPing.
func Ping(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
	_, took, err := ask(ctx, conn, "")
	return took, err
}

// Check asks for the health of a service, and takes for an error what says that it does
// not serve; see grpcpool.WithHealthCheck.
func Check(ctx context.Context, conn *grpc.ClientConn, service string) (time.Duration, error) {
	said, took, err := ask(ctx, conn, service)
	if err == nil {
		err = said.notServing(service)
	}
	return took, err
}

// reply is what a gRPC server has answered.
type reply struct {
	health healthpb.HealthCheckResponse_ServingStatus // if err is nil
	err    error                                      // with its status; or that the stream was reset
	reset  bool                                       // err is not a status of the server's
}

// notServing is the error of a reply by which service does not serve, or nil. Other
// statuses, such as Unimplemented or Unauthenticated, do not say whether it does.
func (r reply) notServing(service string) error {
	whose := "the whole server"
	if service != "" {
		whose = fmt.Sprintf("%q", service)
	}
	switch {
	case r.err == nil && r.health != healthpb.HealthCheckResponse_SERVING:
		return &checkError{text: fmt.Sprintf("the health service reports %v for %s; check the server, or wait until it serves", r.health, whose)}
	case r.err == nil, r.reset:
		return nil
	}
	words := strings.TrimSuffix(fmt.Sprintf("%v: %s", status.Code(r.err), status.Convert(r.err).Message()), ": ")
	switch status.Code(r.err) {
	case codes.Unavailable:
		return &checkError{"the health service answers " + words + "; check the server, or wait until it serves", r.err}
	case codes.NotFound:
		return &checkError{"the health service has no status for " + whose + " (" + words + "); check the name given to WithHealthCheck, or wait until the server registers it", r.err}
	default:
		return nil
	}
}

// ask asks for the health of a service. The error is nil if a gRPC server answered.
func ask(ctx context.Context, conn *grpc.ClientConn, service string) (said reply, took time.Duration, err error) {
	start := time.Now()
	health, how, err := call(ctx, conn, service)
	took = time.Since(start)
	switch how.Kind {
	case answer.GRPC:
		return reply{health: health.GetStatus(), err: err}, took, nil
	case answer.Reset:
		return reply{err: err, reset: true}, took, nil
	case answer.HTTP:
		if reason.Of(err) == reason.ClientCertificate {
			break // nginx refuses a certificate like this, after the handshake: no call will succeed
		}
		return said, took, notGRPC(how, err)
	case answer.Unsent:
		if conn.GetState() == connectivity.Ready && !told.SaysEjected(err.Error()) { // it waited for a connection that was dead
			return said, took, &answer.NoVerdictError{Err: err, Text: "the health check was not sent, which says nothing about the connection: " + Describe(err)}
		}
	case answer.None:
	}
	return said, took, fmt.Errorf("grpcpool: health check: %w", err)
}

// call makes the call. It repeats it when a timeout of the program's service config has
// ended it before ctx.
func call(ctx context.Context, conn *grpc.ClientConn, service string) (health *healthpb.HealthCheckResponse, how answer.Answer, err error) {
	for silent := false; ; {
		start := time.Now()
		var call answer.Call
		health = new(healthpb.HealthCheckResponse)
		err = conn.Invoke(ctx, healthpb.Health_Check_FullMethodName, &healthpb.HealthCheckRequest{Service: service}, health, call.Options()...)
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

// leastTimeout is the shortest timeout of a service config after which call repeats the
// call.
const leastTimeout = 10 * time.Millisecond

// notGRPC is the error of a health check that HTTP answered and gRPC did not. An error of
// the HTTP server's own (500 and above) means that nothing serves behind it. Below that
// the answer says nothing about the methods of the program.
func notGRPC(how answer.Answer, err error) error {
	words, _, _ := strings.Cut(status.Convert(err).Message(), "\n") // what follows is the page
	text := how.String() + " (" + words + ")"
	if how.HTTP >= http.StatusInternalServerError {
		return &checkError{text + "; check the proxy there, and the server behind it", err}
	}
	text += "; check the address, or, if a proxy there forwards only some methods to a gRPC server, ping with one of them (WithPing)"
	return &answer.NoVerdictError{Err: err, Text: text}
}

// checkError is the error of a health check whose answer means that nothing serves.
type checkError struct {
	text string
	err  error // gRPC's; nil if the health service answered OK
}

func (e *checkError) Error() string { return "grpcpool: health check: " + e.text }

func (e *checkError) Unwrap() error { return e.err }

// GRPCStatus has the code Unavailable, for which clients try again.
func (e *checkError) GRPCStatus() *status.Status { return status.New(codes.Unavailable, e.Error()) }
