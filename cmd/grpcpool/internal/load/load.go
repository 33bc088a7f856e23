package load

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/internal/answer"
	"github.com/davidwartell/go-grpcpool/internal/reason"
)

// Config says how much load.
type Config struct {
	Callers  int           // that call at the same time, each without a pause
	Duration time.Duration // of the whole, all turns of one way together
	Timeout  time.Duration // of one call
	Turns    int           // the ways take turns, so that noise falls on all
}

// Way is one way to the server.
type Way struct {
	Name string

	// Conn makes a connection, or what stands for it. done is called after a turn.
	Conn func(ctx context.Context) (cc grpc.ClientConnInterface, done func(), err error)

	// Look is called now and then during a turn. It says how many connections there
	// are and how many calls wait for a stream. Nil: not known.
	Look func() (connections, waiting int)
}

// Result is what came of one way. Times are in milliseconds.
type Result struct {
	Way            string         `json:"way"`
	Calls          int64          `json:"calls"`
	Failed         int64          `json:"failed"`
	Errors         map[string]int `json:"errors,omitempty"` // by what they say, of at most ten kinds
	CallsPerSecond float64        `json:"calls_per_second"`
	P50            float64        `json:"p50_ms"`
	P90            float64        `json:"p90_ms"`
	P99            float64        `json:"p99_ms"`
	P999           float64        `json:"p999_ms"`
	Max            float64        `json:"max_ms"`
	Connections    int            `json:"connections"` // at most at a time
	Waiting        int            `json:"waiting"`     // calls that waited for a stream, at most at a time; -1: not known
}

// Progress is where a run is.
type Progress struct {
	Way   string
	Done  float64 // of the whole run, from 0 to 1
	Calls int64   // of this turn
}

const (
	lookEvery     = 10 * time.Millisecond
	maxErrorKinds = 10
	maxAnswer     = 4 << 20 // bytes, as gRPC has it by default
)

// Run lets the ways take turns. Calls that a turn's end cuts short do not count. tick
// is called about ten times a second, and may be nil. When ctx ends so does Run,
// with ctx's error.
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

// measure is what is known of one way so far.
type measure struct {
	way   Way
	spent time.Duration
	look  Result // Connections and Waiting of it

	mu    sync.Mutex // guards what follows
	times *hdrhistogram.Histogram
	fails map[string]int
	bad   int64
}

func newMeasure(w Way) *measure {
	return &measure{
		way: w, look: Result{Way: w.Name, Waiting: -1},
		times: hdrhistogram.New(1, longestCall, 3), fails: make(map[string]int),
	}
}

// longestCall is what the histogram can hold, in microseconds; longer ones count
// as this.
const longestCall = 3600_000_000

func (a *measure) turn(ctx context.Context, m Method, cfg Config, show func(time.Duration, int64)) error {
	cc, done, err := a.way.Conn(ctx)
	if err != nil {
		return err
	}
	defer done()
	first, cancelFirst := context.WithTimeout(ctx, cfg.Timeout)
	err = tryOut(first, cc, m) // the dial is not what is measured
	cancelFirst()
	if err != nil {
		return fmt.Errorf("load: over the %s: %w", a.way.Name, err)
	}
	length := cfg.Duration / time.Duration(cfg.Turns)
	calling, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(length, cancel).Stop() // no deadline, which the calls would carry
	var calls atomic.Int64
	var callers sync.WaitGroup
	start := time.Now()
	for range cfg.Callers {
		callers.Go(func() { a.caller(calling, cc, m, cfg.Timeout, &calls) })
	}
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for n := 0; calling.Err() == nil; n++ {
		a.lookNow()
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

func (a *measure) lookNow() {
	if a.way.Look == nil {
		return
	}
	connections, waiting := a.way.Look()
	a.look.Connections = max(a.look.Connections, connections)
	a.look.Waiting = max(a.look.Waiting, waiting)
}

// caller calls until ctx ends, and hands in what it has seen a few at a time.
func (a *measure) caller(ctx context.Context, cc grpc.ClientConnInterface, m Method, timeout time.Duration, calls *atomic.Int64) {
	var batch [64]int64 // microseconds
	n := 0
	for ctx.Err() == nil {
		one, cancel := context.WithTimeout(ctx, timeout)
		start := time.Now()
		err := call(one, cc, m)
		took := time.Since(start)
		cancel()
		if ctx.Err() != nil {
			break // cut short
		}
		calls.Add(1)
		if err != nil {
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
	text := status.Code(err).String() + ": " + reason.Detail(err)
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
	r := a.look
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

// tryOut calls once. A status that the server has answered comes back as its own.
func tryOut(ctx context.Context, cc grpc.ClientConnInterface, m Method) error {
	var first answer.Call
	err := call(ctx, cc, m, append(first.Options(), grpc.MaxCallRecvMsgSize(maxAnswer), grpc.MaxCallSendMsgSize(math.MaxInt32))...)
	if err != nil && first.Of(err).Kind == answer.GRPC {
		return fmt.Errorf("the server answered %v: %w", status.Code(err), reason.ByServer(err))
	}
	return err
}

// bytesCodec sends messages that are encoded already and does not read answers, so
// that what is measured is the way and the server.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	data, ok := v.([]byte)
	if !ok {
		return nil, errors.New("load: not encoded yet")
	}
	return mem.BufferSlice{mem.SliceBuffer(data)}, nil
}

func (bytesCodec) Unmarshal(mem.BufferSlice, any) error { return nil }
