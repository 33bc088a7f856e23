package otelpool

import (
	"context"
	"errors"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// The attributes of the metrics, beside [PoolNameKey]. ServerAddressKey is the host in the
// factory's target, as in OpenTelemetry's semantic conventions; it is left out for a
// factory without a method Target() string.
const (
	ServerAddressKey   = attribute.Key("server.address")
	ConnectionStateKey = attribute.Key("grpcpool.connection.state")  // of grpcpool.connection.count
	CloseReasonKey     = attribute.Key("grpcpool.close.reason")      // of grpcpool.connection.closed
	TestResultKey      = attribute.Key("grpcpool.test.result")       // of grpcpool.connection.test
	WaitResultKey      = attribute.Key("grpcpool.wait.result")       // of grpcpool.connection.wait_time
	CertificateKey     = attribute.Key("grpcpool.certificate.owner") // of grpcpool.certificate.expiry
)

// WithMetrics returns an option of a pool that measures it. Names, units and attributes follow
// OpenTelemetry's conventions for database connection pools. Every metric has the
// attributes grpcpool.name (see shared.WithName) and server.address; the list names any
// others. Give pools to the same server different names; otherwise their metrics are
// merged.
//
//	grpcpool.call.count                   {call}        calls made on the pool that have ended, by rpc.response.status_code;
//	                                                    a stream has ended when its lease has
//	grpcpool.connection.count             {connection}  open now; grpcpool.connection.state is "idle" (no stream),
//	                                                    "used", or "connecting" (not open yet)
//	grpcpool.connection.max               {connection}  the most that may be open
//	grpcpool.connection.pending_requests  {request}     callers waiting in Get, and calls waiting for a stream
//	grpcpool.connection.create_time       s             time to dial a connection; its count is the number opened
//	grpcpool.connection.failed            {attempt}     dials that failed
//	grpcpool.connection.closed            {connection}  grpcpool.close.reason is "shrunk" (unused), "replaced",
//	                                                    "ejected" (did not answer), "lost" (ended by the server or
//	                                                    the network), or, if its channel was closed: "idle" (no
//	                                                    leases), "retired" (failed its test), "failed" (was never
//	                                                    lent), "shutdown" (the pool was closed)
//	grpcpool.connection.test              {test}        tests of channels; grpcpool.test.result is "ok" or "failed"
//	grpcpool.connection.wait_time         s             time that callers waited in Get, if they had to;
//	                                                    grpcpool.wait.result is "ok" (they got one), "failed" (there
//	                                                    was none to be had), "timeout" (their deadline passed),
//	                                                    "canceled" (they gave up), or "shutdown" (the pool was closed)
//	grpcpool.connection.use_time          s             time from a lease to its return; of a call made on the pool, how
//	                                                    long it took
//	grpcpool.connection.timeouts          {timeout}     callers whose deadline passed in Get, and calls that ended while
//	                                                    they waited for a stream
//	grpcpool.stream.active                {stream}      streams on open connections
//	grpcpool.stream.limit                 {stream}      the most that those may have, without servers that set no
//	                                                    limit; absent if no open connection has a limit
//	grpcpool.lease.count                  {lease}       leases out now
//	grpcpool.lease.leaked                 {lease}       leases reported by leak detection
//	grpcpool.certificate.expiry           s             time until a certificate expires; grpcpool.certificate.owner is "client"
//	                                                    (of new connections) or "server" (of open connections, the
//	                                                    first to expire)
//
// The counters are there from the start, as 0 for every value of their attributes, and so
// are the gauges, but for grpcpool.stream.limit and grpcpool.certificate.expiry. Of the
// values of rpc.response.status_code, OK, DEADLINE_EXCEEDED and UNAVAILABLE are; the others
// appear with the first call that ends so. A histogram appears with the first time that it
// measures.
//
// A call made on the pool waits for a connection in gRPC, as on any channel, and not in the
// pool: such a call is neither a pending request nor one of the timeouts, and has no
// wait_time. How it ends is in grpcpool.call.count. While it waits it has a lease and no
// stream. Over a factory that is not a grpcpool.ChannelFactory, calls wait as Get does, and
// count as callers in Get.
//
// [WithInstrumentation] measures the RPCs themselves, by method. Unless gRPC retries some,
// it counts as many as the pool, but for calls that never begin: on a closed pool, or with a
// context that has ended.
//
// Of the options, WithMetrics uses only [WithMeterProvider]. When the pool is closed its
// gauges end; its counters and histograms are complete once Close has returned. With it,
// Get and Return take about twice as long as without.
func WithMetrics(opts ...Option) shared.Option {
	provider := newConfig("WithMetrics", opts).meterProvider
	return shared.WithHooks(func(p *shared.Pool) shared.Hooks {
		m := newMetrics(provider.Meter(scopeName), p)
		return shared.Hooks{Event: func(e shared.Event) { m.event(p, e) }, Waited: m.waited, Used: m.used}
	})
}

// metrics are the instruments of one pool. They do not refer to the pool, which the meter
// would then keep for ever.
type metrics struct {
	set  attribute.Set // of the pool
	with []metric.RecordOption

	createTime, waitTime, useTime                 metric.Float64Histogram
	calls, failed, closed, tests, timeouts, leaks metric.Int64Counter

	count, most, pending, streams, limits, leases metric.Int64ObservableUpDownCounter
	expiry                                        metric.Float64ObservableGauge

	ended atomic.Bool // the pool is closed: it has no gauges any more

	mu       sync.Mutex            // guards what has been counted so far
	timedOut uint64                // callers
	called   map[codes.Code]uint64 // calls by code
}

// boundaries returns the buckets of the histograms, in seconds: OpenTelemetry's for
// database pools, and some below and above for a pool that shares connections.
func boundaries() metric.HistogramOption {
	return metric.WithExplicitBucketBoundaries(0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60)
}

func newMetrics(meter metric.Meter, p *shared.Pool) *metrics {
	stats := p.Stats()
	var all []attribute.KeyValue
	if stats.Name != "" {
		all = append(all, PoolNameKey.String(stats.Name))
	}
	if host := serverAddress(stats.Target); host != "" {
		all = append(all, ServerAddressKey.String(host))
	}
	m := &metrics{set: attribute.NewSet(all...), called: make(map[codes.Code]uint64)}
	m.with = []metric.RecordOption{metric.WithAttributeSet(m.set)}
	m.makeSync(meter)
	m.makeObservable(meter)
	m.observeWhileInUse(meter, p)
	m.begin()
	return m
}

func (m *metrics) makeSync(meter metric.Meter) {
	histogram := func(name, description string) metric.Float64Histogram {
		h, err := meter.Float64Histogram("grpcpool."+name, metric.WithUnit("s"), metric.WithDescription(description), boundaries())
		handle(err)
		return h
	}
	counter := func(name, unit, description string) metric.Int64Counter {
		c, err := meter.Int64Counter("grpcpool."+name, metric.WithUnit(unit), metric.WithDescription(description))
		handle(err)
		return c
	}
	m.createTime = histogram("connection.create_time", "The time it took to create a new connection.")
	m.waitTime = histogram("connection.wait_time", "The time that callers who had to wait for a connection in Get waited, by result.")
	m.useTime = histogram("connection.use_time", "The time between borrowing a connection and returning it to the pool.")
	m.calls = counter("call.count", "{call}", "The number of calls made on the pool that have ended, by gRPC status code.")
	m.failed = counter("connection.failed", "{attempt}", "The number of attempts to create a connection that failed.")
	m.closed = counter("connection.closed", "{connection}", "The number of connections closed, by reason.")
	m.tests = counter("connection.test", "{test}", "The number of tests of the pool's channel, by result.")
	m.timeouts = counter("connection.timeouts", "{timeout}", "The number of timeouts that have occurred waiting for a connection in Get, or for a stream.")
	m.leaks = counter("lease.leaked", "{lease}", "The number of leases reported because they had not been returned in time.")
}

// begin has the counters begin at 0. Otherwise the first event of a kind would make no
// rate, and a query that finds nothing could not tell whether nothing happened.
func (m *metrics) begin() {
	ctx, pool := context.Background(), metric.WithAttributeSet(m.set)
	m.beginCalls(ctx)
	for _, c := range []metric.Int64Counter{m.failed, m.timeouts, m.leaks} {
		c.Add(ctx, 0, pool)
	}
	for _, reason := range reasons {
		m.closed.Add(ctx, 0, pool, metric.WithAttributes(CloseReasonKey.String(reason)))
	}
	for _, result := range []string{resultOK, resultFailed} {
		m.tests.Add(ctx, 0, pool, metric.WithAttributes(TestResultKey.String(result)))
	}
}

func (m *metrics) makeObservable(meter metric.Meter) {
	counter := func(name, unit, description string) metric.Int64ObservableUpDownCounter {
		c, err := meter.Int64ObservableUpDownCounter("grpcpool."+name, metric.WithUnit(unit), metric.WithDescription(description))
		handle(err)
		return c
	}
	m.count = counter("connection.count", "{connection}", "The number of connections that are currently in the state described by the state attribute.")
	m.most = counter("connection.max", "{connection}", "The maximum number of open connections allowed.")
	m.pending = counter("connection.pending_requests", "{request}", "The number of callers waiting for a connection in Get, and of calls waiting for a stream.")
	m.streams = counter("stream.active", "{stream}", "The number of streams on open connections.")
	m.limits = counter("stream.limit", "{stream}", "The number of streams that the server allows at once on open connections, if it has a limit.")
	m.leases = counter("lease.count", "{lease}", "The number of leases that are out.")
	expiry, err := meter.Float64ObservableGauge("grpcpool.certificate.expiry", metric.WithUnit("s"),
		metric.WithDescription("The time until a certificate in use expires, by its owner."))
	handle(err)
	m.expiry = expiry
}

// observeWhileInUse has the meter look at the pool as long as the program has it, and not
// only until it is closed: calls may be made on a closed pool, and they fail.
func (m *metrics) observeWhileInUse(meter metric.Meter, p *shared.Pool) {
	pool := weak.Make(p)
	look := func(ctx context.Context, o metric.Observer) error {
		if p := pool.Value(); p != nil {
			m.observe(ctx, p.Stats(), o)
		}
		return nil
	}
	registration, err := meter.RegisterCallback(look, m.count, m.most, m.pending, m.streams, m.limits, m.leases, m.expiry)
	handle(err)
	if registration != nil {
		runtime.AddCleanup(p, func(r metric.Registration) { handle(r.Unregister()) }, registration)
	}
}

// handle reports an error to OpenTelemetry's error handler, as there is no caller to return
// it to.
func handle(err error) {
	if err != nil {
		otel.Handle(err)
	}
}

// The values of TestResultKey and WaitResultKey.
const (
	resultOK       = "ok"
	resultFailed   = "failed"
	resultTimeout  = "timeout"
	resultCanceled = "canceled"
	resultShutdown = "shutdown"
)

// waitResult is the value of WaitResultKey for a caller whose wait ended with err.
func waitResult(err error) string {
	switch {
	case err == nil:
		return resultOK
	case errors.Is(err, grpcpool.ErrClosed):
		return resultShutdown
	}
	switch status.Code(err) { // that of the caller's context, if it ended the wait
	case codes.DeadlineExceeded:
		return resultTimeout
	case codes.Canceled:
		return resultCanceled
	default:
		return resultFailed
	}
}

// reasons are the values of CloseReasonKey, by kind of event.
var reasons = map[shared.EventKind]string{
	shared.EventShrank:         "shrunk",
	shared.EventReplaced:       "replaced",
	shared.EventEjected:        "ejected",
	shared.EventLost:           "lost",
	shared.EventClosedIdle:     "idle",
	shared.EventClosedRetired:  "retired",
	shared.EventClosedShutdown: "shutdown",
	shared.EventOpenFailed:     "failed",
}

// event counts an event of the pool.
func (m *metrics) event(p *shared.Pool, e shared.Event) {
	ctx := context.Background()
	switch e.Kind {
	case shared.EventDialled:
		m.createTime.Record(ctx, e.Took.Seconds(), m.with...)
	case shared.EventDialFailed:
		m.add(ctx, m.failed, e.Count)
	case shared.EventTested:
		m.add(ctx, m.tests, e.Count, TestResultKey.String(resultOK))
	case shared.EventTestFailed:
		m.add(ctx, m.tests, e.Count, TestResultKey.String(resultFailed))
	case shared.EventLeaked:
		m.add(ctx, m.leaks, e.Count)
	case shared.EventShrank, shared.EventReplaced, shared.EventEjected, shared.EventLost:
		m.add(ctx, m.closed, e.Count, CloseReasonKey.String(reasons[e.Kind]))
	case shared.EventClosedIdle, shared.EventClosedRetired, shared.EventClosedShutdown, shared.EventOpenFailed:
		m.add(ctx, m.closed, e.Connections, CloseReasonKey.String(reasons[e.Kind]))
	case shared.EventShutdown:
		m.ended.Store(true)
		m.catchUp(ctx, p.Stats())
	default: // not counted
	}
}

// catchUp counts what the pool itself counts, and events do not: calls, and timeouts, as in
// a flood there is not one event for each.
func (m *metrics) catchUp(ctx context.Context, stats shared.Stats) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.countCallsLocked(ctx, stats.Calls)
	if all := stats.TimedOut + stats.Starved; all > m.timedOut {
		m.add(ctx, m.timeouts, int(all-m.timedOut)) //nolint:gosec // far below 2^63
		m.timedOut = all
	}
}

// add adds n to a counter, with the pool's attributes and more.
func (m *metrics) add(ctx context.Context, c metric.Int64Counter, n int, more ...attribute.KeyValue) {
	if n > 0 {
		c.Add(ctx, int64(n), metric.WithAttributeSet(m.set), metric.WithAttributes(more...))
	}
}

func (m *metrics) waited(took time.Duration, err error) {
	m.waitTime.Record(context.Background(), took.Seconds(), metric.WithAttributeSet(m.set),
		metric.WithAttributes(WaitResultKey.String(waitResult(err))))
}

func (m *metrics) used(took time.Duration) {
	m.useTime.Record(context.Background(), took.Seconds(), m.with...)
}

// observe is called when metrics are collected.
func (m *metrics) observe(ctx context.Context, stats shared.Stats, o metric.Observer) {
	m.catchUp(ctx, stats)
	if m.ended.Load() {
		return
	}
	var now current
	now.add(stats.Current)
	for _, c := range stats.Retired {
		now.add(c)
	}
	pool := metric.WithAttributeSet(m.set)
	for state, n := range map[string]int{"idle": now.idle, "used": now.used, "connecting": now.connecting} {
		o.ObserveInt64(m.count, int64(n), pool, metric.WithAttributes(ConnectionStateKey.String(state)))
	}
	o.ObserveInt64(m.most, int64(now.most), pool)
	o.ObserveInt64(m.pending, int64(stats.Waiting+now.waiters), pool)
	o.ObserveInt64(m.streams, int64(now.streams), pool)
	if now.limited {
		o.ObserveInt64(m.limits, now.limit, pool)
	}
	o.ObserveInt64(m.leases, int64(stats.Leases), pool)
	for owner, end := range map[string]time.Time{"client": stats.Identity.NotAfter, "server": now.expires} {
		if !end.IsZero() {
			o.ObserveFloat64(m.expiry, math.Floor(time.Until(end).Seconds()), pool, metric.WithAttributes(CertificateKey.String(owner)))
		}
	}
}

// current sums up the state of channels.
type current struct {
	idle, used, connecting, most, waiters, streams int
	limit                                          int64
	limited                                        bool // a connection has a limit
	expires                                        time.Time
}

func (now *current) add(channel scale.Channel) {
	for _, s := range channel.Subchannels {
		now.connecting += s.Dialling
		now.most += s.MaxConnections
		now.waiters += s.Waiters
		for i := range s.Connections {
			now.addConnection(&s.Connections[i])
		}
	}
}

func (now *current) addConnection(c *scale.Connection) {
	if c.InFlight > 0 {
		now.used++
	} else {
		now.idle++
	}
	now.streams += c.InFlight
	if c.Limit != scale.Unlimited {
		now.limit += int64(c.Limit)
		now.limited = true
	}
	if c.TLS != nil && (now.expires.IsZero() || c.TLS.Expires.Before(now.expires)) {
		now.expires = c.TLS.Expires
	}
}
