package observe_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/davidwartell/go-grpcpool/otelpool"
	"github.com/davidwartell/go-grpcpool/shared"
)

// scraped is a program with a Prometheus endpoint.
type scraped struct {
	t        *testing.T
	provider *sdkmetric.MeterProvider
	url      string
	client   *http.Client
}

func newScraped(t *testing.T) *scraped {
	t.Helper()
	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	if err != nil {
		t.Fatal(err)
	}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	t.Cleanup(func() {
		server.Close()
		if err := provider.Shutdown(context.Background()); err != nil {
			t.Errorf("the provider: %v", err)
		}
	})
	return &scraped{t, provider, server.URL, server.Client()}
}

// families are the metrics as Prometheus reads them.
func (s *scraped) families() map[string]*dto.MetricFamily {
	s.t.Helper()
	answer, err := s.client.Get(s.url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return families
}

// figures are the values by OpenTelemetry's names, as the other tests write them;
// of histograms the count.
func (s *scraped) figures() map[string]int64 {
	s.t.Helper()
	got := make(map[string]int64)
	for name, family := range s.families() {
		if !strings.HasPrefix(name, "grpcpool_") {
			continue
		}
		for _, m := range family.GetMetric() {
			got[name+s.kind(name, m)] = int64(m.GetCounter().GetValue()+m.GetGauge().GetValue()) + int64(m.GetHistogram().GetSampleCount())
		}
	}
	return got
}

func (s *scraped) kind(name string, m *dto.Metric) string {
	found, pool := "", ""
	for _, l := range m.GetLabel() {
		switch key := l.GetName(); {
		case key == "grpcpool_name", key == "server_address":
			pool += l.GetValue() + " "
		case strings.HasPrefix(key, "otel_scope_"):
		default:
			found = "{" + l.GetValue() + "}"
		}
	}
	if pool != "orders localhost " {
		s.t.Errorf("%s is of the pool %q", name, pool)
	}
	return found
}

// prometheusName is what the exporter makes of a name.
func prometheusName(name string) string {
	base, kind, _ := strings.Cut(name, "{")
	base = strings.ReplaceAll(base, ".", "_")
	switch {
	case strings.HasSuffix(base, "_time"), strings.HasSuffix(base, "_expiry"):
		base += "_seconds"
	case strings.HasSuffix(base, "_closed"), strings.HasSuffix(base, "_timeouts"), strings.HasSuffix(base, "_test"), strings.HasSuffix(base, "_failed"), strings.HasSuffix(base, "_leaked"), strings.HasSuffix(base, "_call_count"):
		base += "_total"
	}
	if kind != "" {
		base += "{" + kind
	}
	return base
}

func TestPrometheusScrapesTheMetrics(t *testing.T) {
	p := newScraped(t)
	s := newStage(t, shared.WithWaitForReady(), otelpool.WithMetrics(otelpool.WithMeterProvider(p.provider)))
	middle := s.begin()
	wantFigures(t, p.figures(), middle, prometheusName)
	sums := s.end()
	wantFigures(t, p.figures(), sums, prometheusName)
	wantBalance(t, p.figures(), prometheusName)
}

// dashboardFile is what users import into Grafana.
const dashboardFile = "../../docs/grafana.json"

var (
	quoted   = regexp.MustCompile(`"[^"]*"`)
	selector = regexp.MustCompile(`\{[^}]*\}|\b(?:by|without|on)\s*\([^)]*\)`)
	values   = regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`)
	ours     = regexp.MustCompile(`\b(?:grpcpool|server)_[a-z_]+`)
)

func TestTheDashboardNamesOnlyWhatIsThere(t *testing.T) {
	p := newScraped(t)
	s := newStage(t, shared.WithWaitForReady(), otelpool.WithMetrics(otelpool.WithMeterProvider(p.provider)))
	s.begin()
	names, labels := p.series() // gauges end with the pool
	s.end()
	more, moreLabels := p.series()
	for n := range more {
		names[n] = true
	}
	for l := range moreLabels {
		labels[l] = true
	}

	file, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var dashboard any
	if err := json.Unmarshal(file, &dashboard); err != nil {
		t.Fatalf("%s: %v", dashboardFile, err)
	}
	used := make(map[string]bool)
	for _, expr := range expressions(dashboard) {
		expr = values.ReplaceAllString(expr, "$1{$2}") // a variable's: the values of a label
		expr = quoted.ReplaceAllString(expr, `""`)
		for _, part := range selector.FindAllString(expr, -1) {
			for _, label := range ours.FindAllString(part, -1) {
				if !labels[label] {
					t.Errorf("the dashboard names the label %q, which no series has: %s", label, expr)
				}
			}
		}
		for _, name := range ours.FindAllString(selector.ReplaceAllString(expr, ""), -1) {
			used[name] = true
			if !names[name] {
				t.Errorf("the dashboard names %q, which is not scraped: %s", name, expr)
			}
		}
	}
	for _, name := range []string{
		"grpcpool_call_count_total", "grpcpool_connection_count", "grpcpool_connection_max", "grpcpool_connection_pending_requests", "grpcpool_connection_create_time_seconds_bucket",
		"grpcpool_connection_wait_time_seconds_bucket", "grpcpool_connection_use_time_seconds_bucket", "grpcpool_connection_timeouts_total",
		"grpcpool_connection_closed_total", "grpcpool_connection_test_total", "grpcpool_stream_active", "grpcpool_stream_limit",
		"grpcpool_lease_count", "grpcpool_certificate_expiry_seconds",
	} {
		if !used[name] {
			t.Errorf("the dashboard does not show %s", name)
		}
	}
}

// series are the names of the samples that are scraped, and of their labels.
func (s *scraped) series() (names, labels map[string]bool) {
	s.t.Helper()
	names, labels = make(map[string]bool), make(map[string]bool)
	for name, family := range s.families() {
		names[name] = true
		if family.GetType() == dto.MetricType_HISTOGRAM {
			names[name+"_bucket"], names[name+"_sum"], names[name+"_count"] = true, true, true
		}
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = true
			}
		}
	}
	return names, labels
}

// expressions are the PromQL of a dashboard: its panels' and its variables'.
func expressions(node any) []string {
	var all []string
	switch node := node.(type) {
	case map[string]any:
		for key, value := range node {
			text, ok := value.(string)
			if ok && (key == "expr" || key == "query" || key == "definition") {
				all = append(all, text)
			}
			all = append(all, expressions(value)...)
		}
	case []any:
		for _, value := range node {
			all = append(all, expressions(value)...)
		}
	}
	return all
}
