package observe_test

import (
	"context"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool/otelpool"
	"github.com/davidwartell/go-grpcpool/shared"
)

// collector is an OpenTelemetry collector that keeps the last value of each series.
type collector struct {
	collectorpb.UnimplementedMetricsServiceServer

	t *testing.T

	mu     sync.Mutex // guards what follows
	latest map[string]int64
	units  map[string]string
}

// startCollector starts a collector that ends with the test.
func startCollector(t *testing.T) (c *collector, address string) {
	t.Helper()
	c = &collector{t: t, latest: make(map[string]int64), units: make(map[string]string)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	collectorpb.RegisterMetricsServiceServer(server, c)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Errorf("the collector: %v", err)
		}
	})
	return c, l.Addr().String()
}

// Export is what an exporter calls.
func (c *collector) Export(_ context.Context, in *collectorpb.ExportMetricsServiceRequest) (*collectorpb.ExportMetricsServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range in.GetResourceMetrics() {
		for _, scope := range resource.GetScopeMetrics() {
			for _, m := range scope.GetMetrics() {
				c.units[m.GetName()] = m.GetUnit()
				c.noteLocked(m)
			}
		}
	}
	return &collectorpb.ExportMetricsServiceResponse{}, nil
}

func (c *collector) noteLocked(m *metricspb.Metric) {
	for _, p := range append(m.GetSum().GetDataPoints(), m.GetGauge().GetDataPoints()...) {
		c.latest[m.GetName()+c.kind(m, p.GetAttributes())] = p.GetAsInt() + int64(p.GetAsDouble())
	}
	for _, p := range m.GetHistogram().GetDataPoints() {
		c.latest[m.GetName()+c.kind(m, p.GetAttributes())] = int64(p.GetCount())
	}
}

// kind checks that the pool is named, and returns the attribute that is left, in
// braces.
func (c *collector) kind(m *metricspb.Metric, attributes []*commonpb.KeyValue) string {
	all := make(map[string]string)
	for _, a := range attributes {
		all[a.GetKey()] = a.GetValue().GetStringValue()
	}
	if all["grpcpool.name"] != "orders" || all["server.address"] != "localhost" {
		c.t.Errorf("%s has the attributes %v", m.GetName(), all)
	}
	delete(all, "grpcpool.name")
	delete(all, "server.address")
	if len(all) == 0 {
		return ""
	}
	values := make([]string, 0, 1)
	for v := range maps.Values(all) {
		values = append(values, v)
	}
	return "{" + strings.Join(values, ",") + "}"
}

func (c *collector) figures() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.latest)
}

func TestACollectorReceivesTheMetrics(t *testing.T) {
	c, address := startCollector(t)
	exporter, err := otlpmetricgrpc.New(t.Context(), otlpmetricgrpc.WithEndpoint(address), otlpmetricgrpc.WithInsecure())
	if err != nil {
		t.Fatal(err)
	}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter)))
	t.Cleanup(func() {
		if err := provider.Shutdown(context.Background()); err != nil {
			t.Errorf("the provider: %v", err)
		}
	})
	flush := func() map[string]int64 {
		if err := provider.ForceFlush(t.Context()); err != nil {
			t.Fatal(err)
		}
		return c.figures()
	}

	s := newStage(t, shared.WithWaitForReady(), otelpool.WithMetrics(otelpool.WithMeterProvider(provider)))
	same := func(name string) string { return name }
	middle := s.begin()
	wantFigures(t, flush(), middle, same)
	sums := s.end()
	wantFigures(t, flush(), sums, same)
	wantBalance(t, c.figures(), same)

	for name, unit := range map[string]string{
		"grpcpool.connection.count": "{connection}", "grpcpool.connection.create_time": "s", "grpcpool.certificate.expiry": "s",
	} {
		if c.units[name] != unit {
			t.Errorf("the unit of %s is %q, want %q", name, c.units[name], unit)
		}
	}
	for _, owner := range []string{"client", "server"} {
		if left := c.figures()["grpcpool.certificate.expiry{"+owner+"}"]; left < 22*3600 || left > 24*3600 {
			t.Errorf("the %s's certificate, of one day, expires in %d s", owner, left)
		}
	}
}
