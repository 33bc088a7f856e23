package otelpool

import (
	"testing"

	"google.golang.org/grpc/codes"
)

func TestCodesThatGRPCDoesNotKnowShareOneName(t *testing.T) {
	for _, code := range []codes.Code{codes.Unauthenticated + 1, 99, 1<<32 - 1} {
		if got := codeName(code); got != "UNKNOWN" {
			t.Errorf("%v is named %q, want UNKNOWN", code, got)
		}
	}
}
