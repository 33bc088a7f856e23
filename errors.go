package grpcpool

import (
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/internal/health"
	"github.com/davidwartell/go-grpcpool/internal/reason"
)

// Errors that a pool's users compare with errors.Is. Each carries a gRPC status,
// so that status.Code works on every error that wraps one.
var (
	// ErrClosed says that the pool has been closed, or is being closed. Its
	// status code is Canceled, as grpc-go's own for a closing channel.
	ErrClosed error = &sentinel{codes.Canceled, "grpcpool: the pool is closed"}

	// ErrConnectionNotOK says that no usable connection could be had. Its status
	// code is Unavailable. What wraps it also wraps the cause.
	ErrConnectionNotOK error = &sentinel{codes.Unavailable, "grpcpool: connection not OK"}
)

// sentinel is an error that is compared by identity and carries a status.
type sentinel struct {
	code codes.Code
	text string
}

func (s *sentinel) Error() string              { return s.text }
func (s *sentinel) GRPCStatus() *status.Status { return status.New(s.code, s.text) }

// connectionError is an ErrConnectionNotOK that says what was being done, to
// which target, and why it failed.
type connectionError struct {
	doing  string // connecting or pinging
	target string
	cause  error
}

const (
	connecting = "connecting to"
	pinging    = "pinging"
)

func (e *connectionError) Error() string {
	text := strings.TrimPrefix(reason.OneLine(health.Describe(e.cause)), e.target+": ") // once is enough
	return fmt.Sprintf("grpcpool: %s %q: %s", e.doing, e.target, text)
}

func (e *connectionError) Unwrap() error { return e.cause }

func (e *connectionError) Is(target error) bool { return target == ErrConnectionNotOK }

func (e *connectionError) GRPCStatus() *status.Status {
	return status.New(codes.Unavailable, e.Error())
}
