package grpcpool

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/internal/answer"
	"github.com/davidwartell/go-grpcpool/internal/reason"
)

// describe returns cause's text for a person: the explanation of why there is no
// connection, if one is known. Otherwise it is cause's text without the frame that
// grpc-go puts around it, and without the code Unavailable, which the error carries
// anyway.
func describe(cause error) string {
	var unsent *answer.NoVerdictError
	if errors.As(cause, &unsent) {
		return unsent.Error()
	}
	var http *httpError
	if errors.As(cause, &http) {
		return http.text
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

// asMet returns the one among the errors as they were met that the status of an RPC
// was made from, or the status if there is none: it has the words only, and neither
// errors.Is nor errors.As find anything in it.
func asMet(rpc error, met []error) error {
	for _, err := range met {
		if strings.Contains(rpc.Error(), err.Error()) {
			return err
		}
	}
	return rpc
}

// isContextEnd reports whether the caller's patience ended a dial. What it was
// waiting for is then the thing to say, and dialProgress has said it.
func isContextEnd(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
