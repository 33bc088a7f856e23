package load

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/internal/answer"
	"github.com/davidwartell/go-grpcpool/internal/reason"
)

// Config configures the load.
type Config struct {
	Callers  int           // concurrent callers, each calling without a pause
	Duration time.Duration // for which each way is measured, over all turns
	Timeout  time.Duration // of one call
	Turns    int           // the ways take turns, so that noise affects all
}

// Way is a kind of connection to the server.
type Way struct {
	Name string

	// Conn connects. done is called after a turn.
	Conn func(ctx context.Context) (cc grpc.ClientConnInterface, done func(), err error)

	// Sample is called regularly during a turn. It returns how many connections there
	// are and how many calls wait for a stream; -1 if that is not known. It may be nil.
	Sample func() (connections, waiting int)
}

// Result is the result of one way. Times are in milliseconds.
type Result struct {
	Way            string         `json:"way"`
	Calls          int64          `json:"calls"`
	Failed         int64          `json:"failed"`
	Errors         map[string]int `json:"errors,omitempty"`  // by text, at most ten different ones
	Refusal        string         `json:"refusal,omitempty"` // the status by which the server answered, if not OK; see Method
	CallsPerSecond float64        `json:"calls_per_second"`
	P50            float64        `json:"p50_ms"`
	P90            float64        `json:"p90_ms"`
	P99            float64        `json:"p99_ms"`
	P999           float64        `json:"p999_ms"`
	Max            float64        `json:"max_ms"`
	Connections    int            `json:"connections"` // maximum at a time
	Waiting        int            `json:"waiting"`     // maximum of calls waiting for a stream at a time; -1: not known
}

// Progress is the progress of a run.
type Progress struct {
	Way   string
	Done  float64 // of the whole run, from 0 to 1
	Calls int64   // of this turn
}

const (
	sampleEvery   = 10 * time.Millisecond
	maxErrorKinds = 10
	maxAnswer     = 4 << 20 // bytes, gRPC's default
)

// Run measures the ways in turn. It does not count calls that are cut off at the end of a
// turn. tick is called about ten times a second; it may be nil. When ctx ends, Run returns
// its error.
func Run(ctx context.Context, m Method, ways []Way, cfg Config, tick func(Progress)) ([]Result, error) {
	all := make([]*measure, len(ways))
	for i, w := range ways {
		all[i] = newMeasure(w)
	}
	for turn := range cfg.Turns {
		for i := range ways {
			done := float64(turn*len(ways)+i) / float64(cfg.Turns*len(ways))
			share := 1 / float64(cfg.Turns*len(ways))
			show := func(elapsed time.Duration, calls int64) {
				if tick != nil {
					part := min(1, float64(elapsed)*float64(cfg.Turns)/float64(cfg.Duration))
					tick(Progress{ways[i].Name, done + share*part, calls})
				}
			}
			if err := all[i].turn(ctx, m, cfg, show); err != nil {
				return nil, err
			}
		}
	}
	results := make([]Result, len(ways))
	for i, a := range all {
		results[i] = a.result()
	}
	return results, nil
}

// measure collects the measurements of one way.
type measure struct {
	way   Way
	spent time.Duration
	seen  Result // its Connections, Waiting and Refusal

	mu    sync.Mutex // guards what follows
	times *hdrhistogram.Histogram
	fails map[string]int
	bad   int64
}

func newMeasure(w Way) *measure {
	return &measure{
		way: w, seen: Result{Way: w.Name, Waiting: -1},
		times: hdrhistogram.New(1, longestCall, 3), fails: make(map[string]int),
	}
}

// longestCall is the longest latency that the histogram holds, in microseconds. Longer
// calls count as this.
const longestCall = 3600_000_000

func (a *measure) turn(ctx context.Context, m Method, cfg Config, show func(time.Duration, int64)) error {
	cc, done, err := a.way.Conn(ctx)
	if err != nil {
		return err
	}
	defer done()
	first, cancelFirst := context.WithTimeout(ctx, cfg.Timeout)
	expected, err := a.tryOut(first, cc, m) // the dial is not measured
	cancelFirst()
	if err != nil {
		return fmt.Errorf("load: over the %s: %w", a.way.Name, err)
	}
	length := cfg.Duration / time.Duration(cfg.Turns)
	calling, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(length, cancel).Stop() // a deadline would be sent with the calls
	var calls atomic.Int64
	var callers sync.WaitGroup
	start := time.Now()
	for range cfg.Callers {
		callers.Go(func() { a.caller(calling, cc, m, cfg.Timeout, expected, &calls) })
	}
	ticker := time.NewTicker(sampleEvery)
	defer ticker.Stop()
	for n := 0; calling.Err() == nil; n++ {
		a.sample()
		if n%10 == 0 {
			show(time.Since(start), calls.Load())
		}
		select {
		case <-ticker.C:
		case <-calling.Done():
		}
	}
	a.spent += time.Since(start)
	callers.Wait()
	return context.Cause(ctx)
}

func (a *measure) sample() {
	if a.way.Sample == nil {
		return
	}
	connections, waiting := a.way.Sample()
	a.seen.Connections = max(a.seen.Connections, connections)
	a.seen.Waiting = max(a.seen.Waiting, waiting)
}

// caller calls until ctx ends, and records latencies in batches. A call that ends with
// another status than expected has failed.
func (a *measure) caller(ctx context.Context, cc grpc.ClientConnInterface, m Method, timeout time.Duration, expected codes.Code, calls *atomic.Int64) {
	var batch [64]int64 // microseconds
	n := 0
	for ctx.Err() == nil {
		one, cancel := context.WithTimeout(ctx, timeout)
		start := time.Now()
		err := call(one, cc, m)
		took := time.Since(start)
		cancel()
		if ctx.Err() != nil {
			break // cut off
		}
		calls.Add(1)
		if status.Code(err) != expected {
			a.failed(err)
			continue
		}
		batch[n] = took.Microseconds()
		if n++; n == len(batch) {
			a.record(batch[:n])
			n = 0
		}
	}
	a.record(batch[:n])
}

func (a *measure) record(micros []int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range micros {
		_ = a.times.RecordValue(max(1, min(t, longestCall))) // within its range
	}
}

func (a *measure) failed(err error) {
	text := "OK"
	if err != nil {
		text = status.Code(err).String() + ": " + reason.Detail(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bad++
	if len(a.fails) < maxErrorKinds || a.fails[text] > 0 {
		a.fails[text]++
	}
}

func (a *measure) result() Result {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.seen
	good := a.times.TotalCount()
	r.Calls, r.Failed, r.Errors = good+a.bad, a.bad, a.fails
	if seconds := a.spent.Seconds(); seconds > 0 {
		r.CallsPerSecond = math.Round(float64(good) / seconds)
	}
	at := func(q float64) float64 { return float64(a.times.ValueAtQuantile(q)) / 1000 }
	r.P50, r.P90, r.P99, r.P999, r.Max = at(50), at(90), at(99), at(99.9), float64(a.times.Max())/1000
	return r
}

func call(ctx context.Context, cc grpc.ClientConnInterface, m Method, opts ...grpc.CallOption) error {
	return cc.Invoke(ctx, m.Path, m.Request, nil, append(opts, grpc.ForceCodecV2(bytesCodec{}))...)
}

// tryOut calls once, and returns the status to expect of the calls: OK, or the refusal of
// the server. It marks a status as the server's if the server has sent it.
func (a *measure) tryOut(ctx context.Context, cc grpc.ClientConnInterface, m Method) (expected codes.Code, err error) {
	var first answer.Call
	err = call(ctx, cc, m, append(first.Options(), grpc.MaxCallRecvMsgSize(maxAnswer), grpc.MaxCallSendMsgSize(math.MaxInt32))...)
	switch code := status.Code(err); {
	case err == nil:
		return codes.OK, nil
	case first.Of(err).Kind != answer.GRPC:
		return code, err
	case m.refuses(code):
		a.seen.Refusal = strings.TrimSuffix(fmt.Sprintf("%v: %s", code, reason.Detail(err)), ": ")
		return code, nil
	default:
		return code, fmt.Errorf("the server answered %v: %w", code, reason.ByServer(err))
	}
}

// bytesCodec sends messages that are already encoded, and does not decode answers, so
// that only the connection and the server are measured.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	data, ok := v.([]byte)
	if !ok {
		return nil, errors.New("load: the message is not encoded")
	}
	return mem.BufferSlice{mem.SliceBuffer(data)}, nil
}

func (bytesCodec) Unmarshal(mem.BufferSlice, any) error { return nil }
