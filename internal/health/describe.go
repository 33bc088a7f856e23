package health

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/internal/answer"
	"github.com/davidwartell/go-grpcpool/internal/reason"
)

// Describe is the text of an error of a dial or a ping: the explanation of why there is no
// connection, where one is known. Otherwise it is cause's text without the frame that
// grpc-go puts around it; the code is left out if it is Unavailable, which the errors of
// package grpcpool carry anyway.
func Describe(cause error) string {
	var unsent *answer.NoVerdictError
	if errors.As(cause, &unsent) {
		return unsent.Error()
	}
	var answered *checkError
	if errors.As(cause, &answered) {
		return answered.text
	}
	var known *reason.Error
	if errors.As(cause, &known) {
		return known.Error()
	}
	if reason.Of(cause) != reason.Unknown && !isContextEnd(cause) {
		return reason.Explain("", cause).Error()
	}
	var carrier interface{ GRPCStatus() *status.Status }
	if !errors.As(cause, &carrier) {
		return cause.Error()
	}
	st := carrier.GRPCStatus()
	if st.Code() == codes.Unavailable {
		return st.Message()
	}
	return fmt.Sprintf("%v: %s", st.Code(), st.Message())
}

// isContextEnd reports whether the caller's context ended a dial. The error says then
// what the dial was waiting for; see package handshake.
func isContextEnd(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
