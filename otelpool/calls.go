package otelpool

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc/codes"
)

// StatusCodeKey is the attribute of grpcpool.call.count, as in OpenTelemetry's semantic
// conventions for RPC, and so in what [WithInstrumentation] measures: "OK", "UNAVAILABLE".
const StatusCodeKey = attribute.Key("rpc.response.status_code")

// codeNames are the values of StatusCodeKey: gRPC's codes as its specification writes them.
var codeNames = [...]string{
	codes.OK:                 "OK",
	codes.Canceled:           "CANCELLED",
	codes.Unknown:            "UNKNOWN",
	codes.InvalidArgument:    "INVALID_ARGUMENT",
	codes.DeadlineExceeded:   "DEADLINE_EXCEEDED",
	codes.NotFound:           "NOT_FOUND",
	codes.AlreadyExists:      "ALREADY_EXISTS",
	codes.PermissionDenied:   "PERMISSION_DENIED",
	codes.ResourceExhausted:  "RESOURCE_EXHAUSTED",
	codes.FailedPrecondition: "FAILED_PRECONDITION",
	codes.Aborted:            "ABORTED",
	codes.OutOfRange:         "OUT_OF_RANGE",
	codes.Unimplemented:      "UNIMPLEMENTED",
	codes.Internal:           "INTERNAL",
	codes.Unavailable:        "UNAVAILABLE",
	codes.DataLoss:           "DATA_LOSS",
	codes.Unauthenticated:    "UNAUTHENTICATED",
}

// codeName is the value of StatusCodeKey for a code. A server may send any number as its
// status: those that gRPC does not know share one name, so that no server can make series
// without end. (Stats has them as Unknown, too.)
func codeName(code codes.Code) string {
	if uint64(code) < uint64(len(codeNames)) { // an int has 32 bits on some platforms
		return codeNames[code]
	}
	return codeNames[codes.Unknown]
}

// expectedCodes are those that have a series before a call has ended with them. The others
// appear with their first call: a series for each of gRPC's codes would be much for a pool
// on which no call is made.
var expectedCodes = []codes.Code{codes.OK, codes.DeadlineExceeded, codes.Unavailable}

// beginCalls has the counter of calls begin at 0.
func (m *metrics) beginCalls(ctx context.Context) {
	for _, code := range expectedCodes {
		m.calls.Add(ctx, 0, metric.WithAttributeSet(m.set), metric.WithAttributes(StatusCodeKey.String(codeName(code))))
	}
}

// countCallsLocked counts the calls by code that were not counted before. No hook is called
// for each call, so counting costs a call nothing. m.mu is held.
func (m *metrics) countCallsLocked(ctx context.Context, calls map[codes.Code]uint64) {
	for code, all := range calls {
		if before := m.called[code]; all > before {
			m.add(ctx, m.calls, int(all-before), StatusCodeKey.String(codeName(code))) //nolint:gosec // far below 2^63
			m.called[code] = all
		}
	}
}
