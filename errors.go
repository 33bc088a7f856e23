package grpcpool

import (
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/internal/health"
	"github.com/davidwartell/go-grpcpool/internal/reason"
)

// Errors to match with errors.Is. Each carries a gRPC status, so status.Code works on
// every error that wraps one.
var (
	// ErrClosed means that the pool is closed or is being closed. Its status code is
	// Canceled, which grpc-go uses for a closing channel.
	ErrClosed error = &sentinel{codes.Canceled, "grpcpool: the pool is closed"}

	// ErrConnectionNotOK means that there is no usable connection. Its status code is
	// Unavailable. An error that matches it also wraps the cause, if there is one, and
	// may carry the code of a cause that no retry can help. It does not mean that a call was
	// not sent: one that was under way when its connection ended may match it too.
	ErrConnectionNotOK error = &sentinel{codes.Unavailable, "grpcpool: connection not OK"}
)

// sentinel is an error that callers compare by identity. It carries a status.
type sentinel struct {
	code codes.Code
	text string
}

func (s *sentinel) Error() string              { return s.text }
func (s *sentinel) GRPCStatus() *status.Status { return status.New(s.code, s.text) }

// connectionError matches ErrConnectionNotOK. It says what failed, for which target,
// and why.
type connectionError struct {
	doing  string // connecting or pinging; "": neither was tried
	target string
	cause  error

	unreached bool // no address has accepted a connection
}

const (
	connecting = "connecting to"
	pinging    = "pinging"
)

func (e *connectionError) Error() string {
	if e.doing == "" {
		return "grpcpool: " + e.cause.Error()
	}
	text := strings.TrimPrefix(reason.OneLine(health.Describe(e.cause)), e.target+": ") // not twice
	return fmt.Sprintf("grpcpool: %s %q: %s", e.doing, e.target, text)
}

func (e *connectionError) Unwrap() error { return e.cause }

// ReachedServer tells a pool how soon it may dial again; see ConnectionFactory.
func (e *connectionError) ReachedServer() bool { return !e.unreached }

func (e *connectionError) Is(target error) bool { return target == ErrConnectionNotOK }

func (e *connectionError) GRPCStatus() *status.Status {
	return status.New(codes.Unavailable, e.Error())
}
