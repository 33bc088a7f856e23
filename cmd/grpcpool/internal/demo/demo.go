// Package demo shows what the pool promises on real input: it mints
// certificates, starts a mutual TLS server on loopback, runs many callers through
// one pool against it, stops the server and brings it back, lets the pool go idle
// and shuts it down, and checks each promise against what was measured.
package demo

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/davidwartell/go-grpcpool/internal/testserver"
	"github.com/davidwartell/go-grpcpool/shared"
)

// streamLimit is how many streams the server allows on a connection. Many servers
// and load balancers allow 100 or 128.
const streamLimit = 128

// maxConnections is what package scale opens at most, unless told otherwise.
const maxConnections = 10

const (
	tickInterval = 200 * time.Millisecond // between two calls of Watcher.Tick
	settle       = 500 * time.Millisecond // of calls after the server is back and has answered
	minPause     = 50 * time.Millisecond  // of a caller after a call that failed
	maxPause     = time.Second            // the same, however many they are
	grace        = 5 * time.Second        // what should happen is waited for this much longer before it counts as broken
)

// Config says how a demo runs. All of it must be set, save Serve.
type Config struct {
	Callers       int           // that call one after another, each without a pause
	Duration      time.Duration // of the calls before the server is stopped
	Payload       int           // bytes that each call sends and gets back
	Outage        time.Duration // how long the server is away
	Idle          time.Duration // the pool's idle timeout
	RecoverWithin time.Duration // of the server's return a call must succeed
	Serve         string        // where the pool's live page is served, "host:port"; "": nowhere
}

// retryPause is how long a caller waits after a call that failed: for most
// demos so long that all of them together fail 2,000 times a second.
func (c Config) retryPause() time.Duration {
	return min(max(minPause, time.Duration(c.Callers)*time.Second/2000), maxPause)
}

// Phase is a part of the demo, in the order of the constants.
type Phase int

// The phases.
const (
	PhaseLoad Phase = iota
	PhaseOutage
	PhaseIdle
	PhaseShutdown
)

func (p Phase) String() string {
	return [...]string{"many callers", "server away", "idle", "shutdown"}[p]
}

// Progress is how a demo stands.
type Progress struct {
	Phase       Phase
	Elapsed     time.Duration // since the demo began
	Calls       uint64        // answered so far
	Failed      uint64        // failed so far
	Rate        float64       // calls answered a second, since the last Tick
	Connections int           // open now, as the server sees it
}

// Watcher is told how a demo goes. The funcs may be nil. They are called from
// different goroutines.
type Watcher struct {
	Serving func(url string)     // the live page can be seen
	Tick    func(Progress)       // some times a second
	Ended   func(Phase, *Result) // the phase's part of the result stands
}

// Run runs a demo. It returns an error if the demo could not be carried out, or
// if ctx ended first; a promise that does not hold is no error but in the Result.
// Nothing is left running when it returns.
func Run(ctx context.Context, cfg Config, w Watcher) (*Result, error) {
	d := &demo{cfg: cfg, watcher: w, result: &Result{}, book: newBook(), began: time.Now()}
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
	book    *book
	result  *Result

	traces  *traces
	server  *testserver.Server
	pool    *shared.Pool
	callers *callers
}

// run goes through the phases, and cleans up whichever way they end.
func (d *demo) run(ctx context.Context) (err error) {
	if err := d.setUp(ctx); err != nil {
		return err
	}
	defer func() { //nolint:contextcheck // Close bounds itself
		d.callers.stop()
		// After the shutdown phase both have nothing left to do.
		err = errors.Join(err, d.pool.Close(), d.server.Stop())
	}()
	stopPage, err := d.servePage(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopPage()) }()
	for phase, do := range []func(context.Context) error{d.load, d.outage, d.idle, d.shutdown} {
		d.book.enter(Phase(phase))
		if err := do(ctx); err != nil {
			return err
		}
		if Phase(phase) != PhaseShutdown { // whose result stands once everything is gone
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

// tick begins to tell the watcher of progress until the func it returns is called.
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
			now := d.book.progress()
			now.Elapsed = time.Since(d.began)
			now.Rate = float64(now.Calls-last.Calls) / (now.Elapsed - last.Elapsed).Seconds()
			last = now
			d.watcher.Tick(now)
		}
	}()
	return func() { close(quit); <-done }
}

// awaitGoroutines gives the goroutines that are on their way out a moment, and
// returns how many more there are than there were.
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
