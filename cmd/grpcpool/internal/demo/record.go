package demo

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// The range of the histogram, and its number of significant digits.
const (
	leastLatency = time.Microsecond
	mostLatency  = time.Minute
	digits       = 3
)

// record collects the results of the callers' calls.
type record struct {
	mu     sync.Mutex // guards what follows
	phase  Phase
	server func() grpcpooltest.Counts // nil until the server is started

	good, bad uint64 // all calls so far
	latencies *hdrhistogram.Histogram

	upSince   time.Time     // calls begun since must not fail; zero while the server is down or not reached again
	failedUp  uint64        // calls that failed although they must not
	firstUp   error         // the first of these failures
	backAt    time.Time     // when the server was restarted; zero before
	recovered chan struct{} // closed by the first good call after that
	firstGood time.Time     // the time of that call
}

func newRecord() *record {
	return &record{
		latencies: hdrhistogram.New(leastLatency.Microseconds(), mostLatency.Microseconds(), digits),
		upSince:   time.Now(),
		recovered: make(chan struct{}),
	}
}

func (r *record) enter(p Phase) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.phase = p
}

func (r *record) serverCounts(counts func() grpcpooltest.Counts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.server = counts
}

// note records a call.
func (r *record) note(began, ended time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.noteFailureLocked(began, err)
		return
	}
	r.good++
	if r.phase == PhaseLoad {
		took := min(ended.Sub(began), mostLatency)
		_ = r.latencies.RecordValue(took.Microseconds()) // within its bounds
	}
	if !r.backAt.IsZero() && r.firstGood.IsZero() {
		r.firstGood, r.upSince = ended, ended
		close(r.recovered)
	}
}

func (r *record) noteFailureLocked(began time.Time, err error) {
	r.bad++
	if r.upSince.IsZero() || began.Before(r.upSince) {
		return
	}
	r.failedUp++
	if r.firstUp == nil {
		r.firstUp = err
	}
}

// serverStops notes that calls may fail from now on.
func (r *record) serverStops() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.upSince = time.Time{}
}

// serverIsBack notes that the server can be reached again. The channel that it returns is
// closed by the first call that succeeds.
func (r *record) serverIsBack() (recovered <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.backAt = time.Now()
	return r.recovered
}

func (r *record) progress() Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := Progress{Phase: r.phase, Calls: r.good, Failed: r.bad}
	if r.server != nil {
		p.Connections = r.server().Open
	}
	return p
}

// load returns the result of the load phase, which took the given time.
func (r *record) load(took time.Duration) Load {
	r.mu.Lock()
	defer r.mu.Unlock()
	quantile := func(q float64) Milliseconds {
		return Milliseconds(time.Duration(r.latencies.ValueAtQuantile(q)) * time.Microsecond)
	}
	return Load{
		Took:           Milliseconds(took),
		Calls:          r.good,
		Failed:         r.bad,
		CallsPerSecond: float64(r.good) / took.Seconds(),
		P50:            quantile(50),
		P99:            quantile(99),
		Max:            quantile(100),
	}
}

// outage returns the result of the outage phase.
func (r *record) outage() Outage {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := Outage{CallsFailed: r.bad - r.failedUp, FailedWhileUp: r.failedUp}
	if r.firstUp != nil {
		o.FirstFailureWhileUp = r.firstUp.Error()
	}
	if !r.firstGood.IsZero() {
		after := Milliseconds(r.firstGood.Sub(r.backAt))
		o.FirstGoodCall = &after
	}
	return o
}
