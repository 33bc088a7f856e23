// Package demo demonstrates the pool and checks its promises. It creates certificates,
// starts a mutual TLS server on loopback, runs many callers through one pool, stops and
// restarts the server, lets the pool go idle, shuts it down, and compares each promise
// with what was measured.
//
//	result, err := demo.Run(ctx, config, demo.Watcher{})
//	if err != nil {
//		return err
//	}
//	for _, p := range result.Promises {
//		fmt.Println(p.Promise, p.Kept, p.Found)
//	}
package demo

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/shared"
)

// streamLimit is how many streams the server allows per connection. Many servers and load
// balancers allow 100 or 128.
const streamLimit = 128

// maxConnections is the default limit of package scale.
const maxConnections = 10

const (
	tickInterval = 200 * time.Millisecond // between calls of Watcher.Tick
	settle       = 500 * time.Millisecond // how long calls continue after the first that succeeds
	minPause     = 50 * time.Millisecond  // of a caller after a failed call
	maxPause     = time.Second            // the same, for any number of callers
	grace        = 5 * time.Second        // how much longer the demo waits before a promise counts as broken
)

// Config configures a demo. All fields but Serve are required.
type Config struct {
	Callers       int           // concurrent callers, each calling without a pause
	Duration      time.Duration // how long they call before the server is stopped
	Payload       int           // bytes that each call sends and receives
	Outage        time.Duration // how long the server is down
	Idle          time.Duration // the pool's idle timeout
	RecoverWithin time.Duration // how soon after the server's restart a call must succeed
	Serve         string        // where to serve the pool's live page, "host:port"; "": nowhere
}

// retryPause is how long a caller waits after a failed call. In most demos all callers
// together then fail 2,000 times a second.
func (c Config) retryPause() time.Duration {
	return min(max(minPause, time.Duration(c.Callers)*time.Second/2000), maxPause)
}

// Phase is a part of the demo. The phases run in this order.
type Phase int

// The phases.
const (
	PhaseLoad Phase = iota
	PhaseOutage
	PhaseIdle
	PhaseShutdown
)

func (p Phase) String() string {
	return [...]string{"many callers", "server down", "idle", "shutdown"}[p]
}

// Progress is the progress of a demo.
type Progress struct {
	Phase       Phase
	Elapsed     time.Duration // since the demo began
	Calls       uint64        // answered so far
	Failed      uint64        // failed so far
	Rate        float64       // calls answered per second since the last Tick
	Connections int           // open now, as the server sees it
}

// Watcher observes a demo. The funcs may be nil. They are called from different
// goroutines.
type Watcher struct {
	Serving func(url string)     // the live page is up
	Tick    func(Progress)       // several times a second
	Ended   func(Phase, *Result) // the phase's part of the result is complete
}

// Run runs a demo. It returns an error if the demo could not run, or if ctx ended first. A
// broken promise is not an error; the Result says so. Nothing is left running when Run
// returns.
func Run(ctx context.Context, cfg Config, w Watcher) (*Result, error) {
	d := &demo{cfg: cfg, watcher: w, result: &Result{}, record: newRecord(), began: time.Now()}
	stopTicks := d.tick()
	defer stopTicks()
	goroutines := runtime.NumGoroutine()

	err := d.run(ctx)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("demo: interrupted: %w", context.Cause(ctx))
	}
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	d.result.Shutdown.GoroutinesLeft = awaitGoroutines(ctx, goroutines)
	d.result.judge(cfg)
	d.ended(PhaseShutdown)
	return d.result, nil
}

type demo struct {
	cfg     Config
	watcher Watcher
	began   time.Time
	record  *record
	result  *Result

	traces  *traces
	server  *grpcpooltest.Standalone
	pool    *shared.Pool
	callers *callers
}

// run runs the phases, and always cleans up.
func (d *demo) run(ctx context.Context) (err error) {
	if err := d.setUp(ctx); err != nil {
		return err
	}
	defer func() { //nolint:contextcheck // Close bounds itself
		d.callers.stop()
		// No-ops after the shutdown phase.
		err = errors.Join(err, d.pool.Close(), d.server.Stop())
	}()
	stopPage, err := d.servePage(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopPage()) }()
	for phase, do := range []func(context.Context) error{d.load, d.outage, d.idle, d.shutdown} {
		d.record.enter(Phase(phase))
		if err := do(ctx); err != nil {
			return err
		}
		if Phase(phase) != PhaseShutdown { // its result is complete once everything is closed
			d.ended(Phase(phase))
		}
	}
	return nil
}

func (d *demo) ended(p Phase) {
	if d.watcher.Ended != nil {
		d.watcher.Ended(p, d.result)
	}
}

// tick reports progress to the watcher until stop is called.
func (d *demo) tick() (stop func()) {
	if d.watcher.Tick == nil {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(tickInterval)
		defer ticker.Stop()
		var last Progress
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
			}
			now := d.record.progress()
			now.Elapsed = time.Since(d.began)
			now.Rate = float64(now.Calls-last.Calls) / (now.Elapsed - last.Elapsed).Seconds()
			last = now
			d.watcher.Tick(now)
		}
	}()
	return func() { close(quit); <-done }
}

// awaitGoroutines waits a moment for goroutines that are about to end, and returns how
// many more there are than before.
func awaitGoroutines(ctx context.Context, before int) int {
	deadline := time.Now().Add(2 * time.Second)
	for {
		left := runtime.NumGoroutine() - before
		if left <= 0 {
			return 0
		}
		if time.Now().After(deadline) || sleep(ctx, 5*time.Millisecond) != nil {
			return left
		}
	}
}

// sleep waits for d, or for the end of ctx, which is the error.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
