package scenario

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"

	"github.com/davidwartell/go-grpcpool/bench/peers"
)

// Call is one call of a trace.
type Call struct {
	At     time.Duration // its begin, from the trace's zero
	Took   time.Duration
	Failed bool

	local string // this side's address of the connection; "" if it came to none
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
			var over peer.Peer
			_, err := client.EmptyCall(callCtx, &testpb.Empty{}, grpc.Peer(&over))
			cancel()
			call := Call{At: begin.Sub(zero), Took: time.Since(begin), Failed: err != nil}
			if over.LocalAddr != nil {
				call.local = over.LocalAddr.String()
			}
			mu.Lock()
			calls = append(calls, call)
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
func (e *Env) probe(ctx context.Context, n int, how prober, config func() peers.Config) (*probing, error) {
	ctx, cancel := context.WithCancel(ctx)
	running := &probing{cancel: cancel, zero: time.Now(), calls: map[string][][]Call{}}
	for range n {
		for _, p := range e.peers {
			c, err := p.New(config())
			if err != nil {
				running.end()
				return nil, fmt.Errorf("%s: %w", p.Name, err)
			}
			running.wg.Go(func() {
				defer c.Close()
				calls := how.run(ctx, c, running.zero)
				running.mu.Lock()
				defer running.mu.Unlock()
				running.calls[p.Name] = append(running.calls[p.Name], calls)
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
