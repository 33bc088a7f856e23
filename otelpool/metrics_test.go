package otelpool_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/otelpool"
	"github.com/davidwartell/go-grpcpool/shared"
)

// meters is a MeterProvider and what it has collected.
type meters struct {
	*sdkmetric.MeterProvider

	reader *sdkmetric.ManualReader
}

func newMeters() meters {
	reader := sdkmetric.NewManualReader()
	return meters{sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), reader}
}

func (m meters) option() otelpool.Option { return otelpool.WithMeterProvider(m.MeterProvider) }

func (m meters) collect(t *testing.T) []metricdata.Metrics {
	t.Helper()
	var got metricdata.ResourceMetrics
	if err := m.reader.Collect(context.Background(), &got); err != nil {
		t.Fatal(err)
	}
	var all []metricdata.Metrics
	for _, scope := range got.ScopeMetrics {
		if scope.Scope.Name != "github.com/davidwartell/go-grpcpool/otelpool" {
			t.Errorf("there are metrics of %q", scope.Scope.Name)
		}
		all = append(all, scope.Metrics...)
	}
	return all
}

// figures are the sums that have been collected, by name and by what tells the
// series of a name apart; of histograms the count.
func (m meters) figures(t *testing.T) map[string]int64 {
	t.Helper()
	got := make(map[string]int64)
	for _, one := range m.collect(t) {
		switch data := one.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				got[one.Name+kind(t, p.Attributes)] += p.Value
			}
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				got[one.Name+kind(t, p.Attributes)] += int64(p.Count)
			}
		case metricdata.Gauge[float64]:
			for _, p := range data.DataPoints {
				got[one.Name+kind(t, p.Attributes)] = int64(p.Value)
			}
		default:
			t.Errorf("%s is a %T", one.Name, data)
		}
	}
	return got
}

// kind is the value of the attribute that is neither the pool's name nor the
// server's address, in braces; there may be one.
func kind(t *testing.T, set attribute.Set) string {
	t.Helper()
	found := ""
	for _, a := range set.ToSlice() {
		switch a.Key {
		case otelpool.PoolNameKey, otelpool.ServerAddressKey:
		case otelpool.StatusCodeKey, otelpool.ConnectionStateKey, otelpool.CloseReasonKey, otelpool.TestResultKey, otelpool.WaitResultKey, otelpool.CertificateKey:
			found += "{" + a.Value.AsString() + "}"
		default:
			t.Errorf("there is the attribute %s", a.Key)
		}
	}
	return found
}

func wantFigures(t *testing.T, got, want map[string]int64) {
	t.Helper()
	for name, n := range want {
		if got[name] != n {
			t.Errorf("%s is %d, want %d", name, got[name], n)
		}
	}
	if t.Failed() {
		t.Logf("all figures: %v", got)
	}
}

// scripted is a factory of channels that never connect. What it says of dials and
// tests is set by the test.
type scripted struct {
	mu         sync.Mutex // guards what follows
	dial, test error
}

var errScripted = errors.New("scripted failure")

func (f *scripted) set(dial, test error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dial, f.test = dial, test
}

func (*scripted) Target() string { return "dns:///orders.example:8443" }

func (f *scripted) NewConnection(context.Context) (*grpc.ClientConn, error) {
	time.Sleep(20 * time.Millisecond)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dial != nil {
		return nil, f.dial
	}
	return grpc.NewClient("passthrough:///nowhere", grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func (f *scripted) ConnectionOk(context.Context, *grpc.ClientConn) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.test
}

func TestTheSumsAreWhatHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newMeters(), &scripted{}
		p := shared.New(f, time.Minute, shared.WithName("orders"), shared.WithLeakDetection(time.Hour), otelpool.WithMetrics(m.option()))
		get := func() grpcpool.PoolClientConn {
			l, err := p.Get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		l := get() // dials: 1 wait
		for range 10 {
			get().Return() // need not wait
		}
		time.Sleep(100 * time.Millisecond)
		wantFigures(t, m.figures(t), map[string]int64{
			"grpcpool.lease.count": 1, "grpcpool.connection.use_time": 10, "grpcpool.connection.wait_time{ok}": 1, "grpcpool.connection.create_time": 1,
		})
		f.set(nil, errScripted)
		time.Sleep(1500 * time.Millisecond) // the test in the background fails; another channel stands
		f.set(nil, nil)
		l.Return()                  // the first channel closes
		time.Sleep(2 * time.Minute) // and the second, idle
		f.set(errScripted, nil)
		for range 3 {
			if _, err := p.Get(t.Context()); !errors.Is(err, errScripted) { // 3 waits, 1 dial
				t.Errorf("Get: %v", err)
			}
		}
		f.set(nil, nil)
		time.Sleep(time.Second)
		kept := get() // the third channel: 1 wait
		time.Sleep(2 * time.Hour)
		kept.Return()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		stats := p.Stats() // only now: a test may have been under way
		want := map[string]int64{
			"grpcpool.connection.create_time":       3,
			"grpcpool.connection.failed":            1,
			"grpcpool.connection.closed{retired}":   1,
			"grpcpool.connection.closed{idle}":      1,
			"grpcpool.connection.closed{shutdown}":  1,
			"grpcpool.connection.test{ok}":          int64(stats.Tests - stats.TestsFailed),
			"grpcpool.connection.test{failed}":      int64(stats.TestsFailed),
			"grpcpool.connection.wait_time{ok}":     2,
			"grpcpool.connection.wait_time{failed}": 3,
			"grpcpool.connection.use_time":          12,
			"grpcpool.lease.leaked":                 1,
			// These did not happen.
			"grpcpool.call.count{OK}":                0,
			"grpcpool.call.count{UNAVAILABLE}":       0,
			"grpcpool.call.count{DEADLINE_EXCEEDED}": 0,

			"grpcpool.connection.closed{shrunk}":   0,
			"grpcpool.connection.closed{replaced}": 0,
			"grpcpool.connection.closed{ejected}":  0,
			"grpcpool.connection.closed{lost}":     0,
			"grpcpool.connection.closed{failed}":   0,
			"grpcpool.connection.timeouts":         0,
		}
		if diff := cmp.Diff(want, m.figures(t)); diff != "" { // nothing else is left: the gauges ended with the pool
			t.Errorf("want (-), got (+):\n%s", diff)
		}
		if stats.TestsFailed != 1 || stats.Tests < 2 {
			t.Errorf("%d tests, %d failed", stats.Tests, stats.TestsFailed)
		}
	})
}

func TestATimeoutIsACallerWhoseDeadlinePassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeters()
		f := &hanging{}
		p := shared.New(f, 0, otelpool.WithMetrics(m.option()))
		var callers sync.WaitGroup
		for i := range 300 {
			callers.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%3+1)*time.Second)
				defer cancel()
				if i%3 == 0 {
					cancel() // called off: no timeout
				}
				if _, err := p.Get(ctx); err == nil {
					t.Error("Get has got a lease of a channel that never came")
				}
			})
		}
		time.Sleep(500 * time.Millisecond)
		wantFigures(t, m.figures(t), map[string]int64{"grpcpool.connection.pending_requests": 200})
		callers.Wait()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		wantFigures(t, m.figures(t), map[string]int64{
			"grpcpool.connection.timeouts": 200, "grpcpool.connection.wait_time{timeout}": 200, "grpcpool.connection.wait_time{canceled}": 100,
		})
	})
}

// hanging is a factory whose dials never end by themselves.
type hanging struct{ scripted }

func (*hanging) NewConnection(ctx context.Context) (*grpc.ClientConn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestMetricsHaveTheFormOfOpenTelemetry(t *testing.T) {
	m := newMeters()
	server, ids := startServer(t, grpc.MaxConcurrentStreams(7))
	p := newPool(t, ids, server.Addr(), nil, shared.WithLeakDetection(time.Hour), otelpool.WithMetrics(m.option()))
	l, err := p.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Return()
	call(t.Context(), t, p)

	got := make(map[string]string)
	for _, one := range m.collect(t) {
		form := one.Unit + " "
		switch data := one.Data.(type) {
		case metricdata.Sum[int64]:
			form += fmt.Sprintf("sum, monotonic: %v", data.IsMonotonic)
			for _, p := range data.DataPoints {
				wantPool(t, one.Name, p.Attributes)
			}
		case metricdata.Histogram[float64]:
			form += fmt.Sprintf("histogram of %d buckets", len(data.DataPoints[0].Bounds)+1)
			wantPool(t, one.Name, data.DataPoints[0].Attributes)
		case metricdata.Gauge[float64]:
			form += "gauge"
			wantPool(t, one.Name, data.DataPoints[0].Attributes)
		}
		if len(one.Description) < 20 || one.Description[len(one.Description)-1] != '.' {
			t.Errorf("%s is described as %q", one.Name, one.Description)
		}
		got[one.Name] = form
	}
	want := map[string]string{
		"grpcpool.call.count":                  "{call} sum, monotonic: true",
		"grpcpool.connection.count":            "{connection} sum, monotonic: false",
		"grpcpool.connection.max":              "{connection} sum, monotonic: false",
		"grpcpool.connection.pending_requests": "{request} sum, monotonic: false",
		"grpcpool.connection.wait_time":        "s histogram of 13 buckets",
		"grpcpool.connection.use_time":         "s histogram of 13 buckets",
		"grpcpool.stream.active":               "{stream} sum, monotonic: false",
		"grpcpool.stream.limit":                "{stream} sum, monotonic: false",
		"grpcpool.lease.count":                 "{lease} sum, monotonic: false",
		"grpcpool.certificate.expiry":          "s gauge",
	}
	for name, form := range want {
		if got[name] != form {
			t.Errorf("%s is %q, want %q", name, got[name], form)
		}
	}
	figures := m.figures(t)
	wantFigures(t, figures, map[string]int64{
		"grpcpool.connection.count{idle}": 1, "grpcpool.connection.count{used}": 0, "grpcpool.connection.count{connecting}": 0,
		"grpcpool.call.count{OK}": 1, "grpcpool.connection.max": 10, "grpcpool.stream.limit": 7, "grpcpool.stream.active": 0, "grpcpool.lease.count": 1,
	})
	for _, owner := range []string{"client", "server"} {
		if left := figures["grpcpool.certificate.expiry{"+owner+"}"]; left < 22*3600 || left > 25*3600 {
			t.Errorf("the %s's certificate, of one day, expires in %d s", owner, left)
		}
	}
}

// wantPool fails unless the attributes name the pool and the server.
func wantPool(t *testing.T, metric string, set attribute.Set) {
	t.Helper()
	name, _ := set.Value(otelpool.PoolNameKey)
	address, _ := set.Value(otelpool.ServerAddressKey)
	if name.AsString() != "test" || address.AsString() != "127.0.0.1" {
		t.Errorf("%s has the attributes %v", metric, set.ToSlice())
	}
}

func TestWithoutAMeterProviderItIsTheGlobalOne(t *testing.T) {
	m, before := newMeters(), otel.GetMeterProvider()
	t.Cleanup(func() { otel.SetMeterProvider(before) })
	otel.SetMeterProvider(m)
	p := shared.New(&scripted{}, 0, otelpool.WithMetrics(otelpool.WithMeterProvider(nil)))
	defer p.Close()
	wantFigures(t, m.figures(t), map[string]int64{"grpcpool.connection.count{idle}": 0, "grpcpool.lease.count": 0})
	if len(m.figures(t)) == 0 {
		t.Error("nothing was measured")
	}
}

func TestAClosedPoolIsNotObserved(t *testing.T) {
	m := newMeters()
	for range 3 {
		p := shared.New(&scripted{}, 0, otelpool.WithMetrics(m.option()))
		if len(m.collect(t)) == 0 {
			t.Error("nothing is observed of an open pool")
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		for _, one := range m.collect(t) { // the counters stay
			if sum, ok := one.Data.(metricdata.Sum[int64]); !ok || !sum.IsMonotonic {
				t.Errorf("observed of a closed pool: %v", one)
			}
		}
	}
}

// A counter that appears with its first event has no rate then, and a dashboard cannot
// tell whether nothing happened or nothing is measured.
func TestMetricsAreThereFromTheStart(t *testing.T) {
	m := newMeters()
	p := shared.New(&scripted{}, 0, shared.WithName("orders"), otelpool.WithMetrics(m.option()))
	defer p.Close()
	want := map[string]int64{
		"grpcpool.call.count{OK}":                0,
		"grpcpool.call.count{UNAVAILABLE}":       0,
		"grpcpool.call.count{DEADLINE_EXCEEDED}": 0,

		"grpcpool.connection.count{idle}":       0,
		"grpcpool.connection.count{used}":       0,
		"grpcpool.connection.count{connecting}": 0,
		"grpcpool.connection.max":               0,
		"grpcpool.connection.pending_requests":  0,
		"grpcpool.connection.failed":            0,
		"grpcpool.connection.test{ok}":          0,
		"grpcpool.connection.test{failed}":      0,
		"grpcpool.connection.timeouts":          0,
		"grpcpool.connection.closed{shrunk}":    0,
		"grpcpool.connection.closed{replaced}":  0,
		"grpcpool.connection.closed{ejected}":   0,
		"grpcpool.connection.closed{lost}":      0,
		"grpcpool.connection.closed{idle}":      0,
		"grpcpool.connection.closed{retired}":   0,
		"grpcpool.connection.closed{failed}":    0,
		"grpcpool.connection.closed{shutdown}":  0,
		"grpcpool.stream.active":                0,
		"grpcpool.lease.count":                  0,
		"grpcpool.lease.leaked":                 0,
	}
	if diff := cmp.Diff(want, m.figures(t)); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	for _, one := range m.collect(t) {
		sum, ok := one.Data.(metricdata.Sum[int64])
		if !ok {
			t.Fatalf("%s is a %T", one.Name, one.Data)
		}
		for _, point := range sum.DataPoints {
			name, _ := point.Attributes.Value(otelpool.PoolNameKey)
			address, _ := point.Attributes.Value(otelpool.ServerAddressKey)
			if name.AsString() != "orders" || address.AsString() != "orders.example" {
				t.Errorf("%s has the attributes %v", one.Name, point.Attributes.ToSlice())
			}
		}
	}
}

// A limit of 0 is one, and means that no call can be made. No limit is something else.
func TestTheStreamLimitOfAnUnlimitedServerIsAbsent(t *testing.T) {
	for name, test := range map[string]struct {
		opts []grpc.ServerOption
		want map[string]int64
	}{
		"unlimited": {nil, map[string]int64{}},
		"limited":   {[]grpc.ServerOption{grpc.MaxConcurrentStreams(7)}, map[string]int64{"grpcpool.stream.limit": 7}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMeters()
			server, ids := startServer(t, test.opts...)
			p := newPool(t, ids, server.Addr(), nil, otelpool.WithMetrics(m.option()))
			call(t.Context(), t, p)
			got := make(map[string]int64)
			for name, n := range m.figures(t) {
				if name == "grpcpool.stream.limit" {
					got[name] = n
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("want (-), got (+):\n%s", diff)
			}
		})
	}
}

func TestMetricsCostGetNoAllocation(t *testing.T) {
	m := newMeters()
	p := shared.New(&scripted{}, 0, otelpool.WithMetrics(m.option()))
	defer p.Close()
	borrow := func() {
		l, err := p.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l.Return()
	}
	borrow()
	if n := testing.AllocsPerRun(1000, borrow); n > 1 {
		t.Errorf("%v allocations, want at most 1", n)
	}
}

// BenchmarkGetReturn is what measuring leases costs.
func BenchmarkGetReturn(b *testing.B) {
	for name, opts := range map[string][]shared.Option{
		"metrics=none": nil,
		"metrics=noop": {otelpool.WithMetrics(otelpool.WithMeterProvider(noop.NewMeterProvider()))},
		"metrics=sdk":  {otelpool.WithMetrics(newMeters().option())},
	} {
		b.Run(name, func(b *testing.B) {
			p := shared.New(&scripted{}, 0, opts...)
			defer p.Close()
			b.ReportAllocs()
			for b.Loop() {
				l, err := p.Get(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				l.Return()
			}
		})
	}
}
