package scenario

import (
	"context"
	"fmt"
	"sync"
	"time"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/bench/peers"
)

// Call is one call of a trace.
type Call struct {
	At     time.Duration // its begin, from the trace's zero
	Took   time.Duration
	Failed bool
}

// Trace is the calls of one peer.
type Trace struct {
	Scenario, Case, Peer string
	Calls                []Call
}

// prober is callers that call one after the other, each at most once every so
// often, and note what comes of it.
type prober struct {
	callers        int
	every, timeout time.Duration
}

// run calls until ctx ends. A call that is still under way then ends with it and
// counts as failed, at that time.
func (p prober) run(ctx context.Context, c peers.Client, zero time.Time) []Call {
	client := testpb.NewTestServiceClient(c)
	var mu sync.Mutex // guards calls
	var calls []Call
	_ = inParallel(p.callers, func(i int) error {
		next := time.Now().Add(p.every * time.Duration(i) / time.Duration(p.callers))
		for sleepUntil(ctx, next) {
			begin := time.Now()
			next = begin.Add(p.every)
			callCtx, cancel := context.WithTimeout(ctx, p.timeout)
			_, err := client.EmptyCall(callCtx, &testpb.Empty{})
			cancel()
			mu.Lock()
			calls = append(calls, Call{begin.Sub(zero), time.Since(begin), err != nil})
			mu.Unlock()
		}
		return nil
	})
	return calls
}

// sleepUntil is false when ctx has ended.
func sleepUntil(ctx context.Context, t time.Time) bool {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// probing is clients that are being probed.
type probing struct {
	wg     sync.WaitGroup
	cancel context.CancelFunc
	zero   time.Time

	mu    sync.Mutex // guards calls
	calls map[string][][]Call
}

// probe begins to probe n clients of every peer.
func (e *Env) probe(ctx context.Context, n int, p prober, config func() peers.Config) (*probing, error) {
	ctx, cancel := context.WithCancel(ctx)
	running := &probing{cancel: cancel, zero: time.Now(), calls: map[string][][]Call{}}
	for range n {
		for _, peer := range e.peers {
			c, err := peer.New(config())
			if err != nil {
				running.end()
				return nil, fmt.Errorf("%s: %w", peer.Name, err)
			}
			running.wg.Go(func() {
				defer c.Close()
				calls := p.run(ctx, c, running.zero)
				running.mu.Lock()
				defer running.mu.Unlock()
				running.calls[peer.Name] = append(running.calls[peer.Name], calls)
			})
		}
	}
	return running, nil
}

// end ends the probing and returns what came of it, by peer and client.
func (p *probing) end() map[string][][]Call {
	p.cancel()
	p.wg.Wait()
	return p.calls
}

// now is the time on the traces' clock.
func (p *probing) now() time.Duration { return time.Since(p.zero) }

// shifted are calls with the zero at t.
func shifted(calls []Call, t time.Duration) []Call {
	moved := make([]Call, len(calls))
	for i, c := range calls {
		c.At -= t
		moved[i] = c
	}
	return moved
}
