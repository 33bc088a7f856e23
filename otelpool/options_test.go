package otelpool_test

import (
	"slices"
	"testing"

	"github.com/davidwartell/go-grpcpool/otelpool"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel"
)

func TestANilOptionIsSkippedAndReportedToOpenTelemetry(t *testing.T) {
	var got []string
	before := otel.GetErrorHandler()
	t.Cleanup(func() { otel.SetErrorHandler(before) })
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { got = append(got, err.Error()) }))

	otelpool.WithInstrumentation(otelpool.WithHealthChecks(), nil)
	otelpool.WithInstrumentation(otelpool.WithHandlerOptions([]otelgrpc.Option{nil}...))
	otelpool.WithTracing(nil)
	otelpool.WithMetrics(nil)
	want := []string{
		"otelpool: WithInstrumentation: option 2 of 2 is nil",
		"otelpool: WithHandlerOptions: option 1 of 1 is nil",
		"otelpool: WithTracing: option 1 of 1 is nil",
		"otelpool: WithMetrics: option 1 of 1 is nil",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the reports are %q, want %q", got, want)
	}
}
