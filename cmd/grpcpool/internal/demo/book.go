package demo

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/davidwartell/go-grpcpool/internal/testserver"
)

// What the histogram holds: from a microsecond to a minute, to three digits.
const (
	leastLatency = time.Microsecond
	mostLatency  = time.Minute
	digits       = 3
)

// book is where the callers' calls are written down.
type book struct {
	mu     sync.Mutex // guards what follows
	phase  Phase
	server func() testserver.Counts // nil until there is one

	good, bad uint64 // all calls so far
	latencies *hdrhistogram.Histogram

	upSince   time.Time     // calls begun from here on must not fail; zero while the server is away or not found again
	failedUp  uint64        // calls that failed although they must not
	firstUp   error         // of the first of those
	backAt    time.Time     // when the server came back, zero before
	recovered chan struct{} // closed by the first good call after that
	firstGood time.Time     // when that was
}

func newBook() *book {
	return &book{
		latencies: hdrhistogram.New(leastLatency.Microseconds(), mostLatency.Microseconds(), digits),
		upSince:   time.Now(),
		recovered: make(chan struct{}),
	}
}

func (b *book) enter(p Phase) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.phase = p
}

func (b *book) serverCounts(counts func() testserver.Counts) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.server = counts
}

// note writes down a call.
func (b *book) note(began, ended time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.noteFailureLocked(began, err)
		return
	}
	b.good++
	if b.phase == PhaseLoad {
		took := min(ended.Sub(began), mostLatency)
		_ = b.latencies.RecordValue(took.Microseconds()) // within its bounds
	}
	if !b.backAt.IsZero() && b.firstGood.IsZero() {
		b.firstGood, b.upSince = ended, ended
		close(b.recovered)
	}
}

func (b *book) noteFailureLocked(began time.Time, err error) {
	b.bad++
	if b.upSince.IsZero() || began.Before(b.upSince) {
		return
	}
	b.failedUp++
	if b.firstUp == nil {
		b.firstUp = err
	}
}

// serverStops says that from here on calls may fail.
func (b *book) serverStops() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.upSince = time.Time{}
}

// serverIsBack says that the server can be reached again. What it returns is
// closed by the first good call.
func (b *book) serverIsBack() (recovered <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backAt = time.Now()
	return b.recovered
}

func (b *book) progress() Progress {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := Progress{Phase: b.phase, Calls: b.good, Failed: b.bad}
	if b.server != nil {
		p.Connections = b.server().Open
	}
	return p
}

// load is the load phase's result, which took the given time.
func (b *book) load(took time.Duration) Load {
	b.mu.Lock()
	defer b.mu.Unlock()
	quantile := func(q float64) Milliseconds {
		return Milliseconds(time.Duration(b.latencies.ValueAtQuantile(q)) * time.Microsecond)
	}
	return Load{
		Took:           Milliseconds(took),
		Calls:          b.good,
		Failed:         b.bad,
		CallsPerSecond: float64(b.good) / took.Seconds(),
		P50:            quantile(50),
		P99:            quantile(99),
		Max:            quantile(100),
	}
}

// outage is the outage phase's result.
func (b *book) outage() Outage {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := Outage{CallsFailed: b.bad - b.failedUp, FailedWhileUp: b.failedUp}
	if b.firstUp != nil {
		o.FirstFailureWhileUp = b.firstUp.Error()
	}
	if !b.firstGood.IsZero() {
		after := Milliseconds(b.firstGood.Sub(b.backAt))
		o.FirstGoodCall = &after
	}
	return o
}
