//go:build linux

package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/integration/internal/faultresult"
)

const (
	soakEvery   = 10 * time.Millisecond // a call is begun, for each client
	soakStreams = 8                     // of each client, at a time
	longestLive = 3 * time.Second       // of a stream that no fault ends
	calm        = 2 * time.Second       // at most, between two faults
	shortest    = 100 * time.Millisecond
	longestTo   = 4 * time.Second // that a fault lasts

	// forgiven is how long after a fault a call may still fail because of it, and
	// toldWithin how long after it has begun, if that is later: so long may a call
	// be on a connection that answers nothing.
	forgiven   = 2 * time.Second
	toldWithin = 3500 * time.Millisecond

	// comesBack bounds the wait for good calls after a fault.
	comesBack = 15 * time.Second
)

// soakFaults are those that a soak picks from.
var soakFaults = []faultStep{
	{kind: faultDrop, arg: dropBoth},
	{kind: faultDrop, arg: dropToServer},
	{kind: faultDrop, arg: dropToClient},
	{kind: faultDrop, arg: dropDataToServer},
	{kind: faultLose, amount: 20},
	{kind: faultReject},
	{kind: faultLink},
	{kind: faultClose},
	{kind: faultStop},
	{kind: faultKill},
	{kind: faultToxic, arg: toxicTimeout},
	{kind: faultToxic, arg: toxicReset},
	{kind: faultToxic, arg: toxicLatency, delay: 100 * time.Millisecond},
	{kind: faultToxic, arg: toxicBandwidth, amount: 20},
}

// outage is a fault of a soak.
type outage struct {
	fault      faultStep
	from, till time.Time
}

// Soak lets one random fault follow the other while a pool, through toxiproxy, and
// a channel, directly, make calls and hold streams on the same server. At the end
// nothing may be left of them, and every call that failed must have its fault.
func Soak(tb testing.TB, d time.Duration, seed uint64) {
	tb.Helper()
	w := newWorld(tb, &Script{
		File: "soak", Rows: []int{24}, Server: ServerSpec{Kind: ServerGRPC, Count: 1, Limit: 100}, Proxy: true,
		Injected: fmt.Sprintf("%v of random faults in real time, seed %d", d, seed),
	}, ClientPool, true)
	w.control = newLoad()
	w.control.client = newClient(tb, ClientScale, w.certs, []string{w.servers[0].config.Addr}, grpc.WithStatsHandler(w.control))
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // to be repeatable
	_ = w.everywhere(func(l *load) error {
		l.calls(callsStep{every: soakEvery, timeout: callTimeout})
		for range soakStreams {
			life := shortest + time.Duration(random.Int64N(int64(longestLive)))
			l.running.Go(func() { l.streamAgain(life) })
		}
		return nil
	})
	var outages []outage
	var slowest time.Duration
	for end := time.Now().Add(d); time.Now().Before(end); {
		o, took := w.strike(random)
		outages, slowest = append(outages, o), max(slowest, took)
		time.Sleep(time.Duration(random.Int64N(int64(calm))))
	}
	w.takeDown()
	good, failed, strangers := account(outages, w.load, w.control)
	for _, text := range strangers[:min(len(strangers), 20)] {
		tb.Error(text)
	}
	if good == 0 || failed == 0 {
		tb.Errorf("%d good calls and %d that failed: want some of each", good, failed)
	}
	w.expectFiles(w.files)
	faultresult.Record(tb, faultresult.Result{
		Row: 24, Client: "both", Injected: w.script.Injected, Recovery: slowest,
		Promised: "nothing left behind; every failed call has its fault", Held: !tb.Failed(),
		Note: fmt.Sprintf("%d faults, %d good calls, %d failed", len(outages), good, failed),
	})
}

// strike lets one fault come and go, waits until both clients have good calls
// again, and tells how long that took.
func (w *world) strike(random *rand.Rand) (outage, time.Duration) {
	w.tb.Helper()
	f := soakFaults[random.IntN(len(soakFaults))]
	lasts := shortest + time.Duration(random.Int64N(int64(longestTo-shortest)))
	begin, err := w.prepare(f)
	if err != nil {
		w.tb.Fatal(err)
	}
	o := outage{fault: f}
	if o.from, err = begin(); err != nil {
		w.tb.Fatal(err)
	}
	time.Sleep(lasts)
	if err := w.heal(); err != nil {
		w.tb.Fatal(err)
	}
	o.till = w.fault.healed
	var took time.Duration
	_ = w.everywhere(func(l *load) error {
		first := l.awaitGood(o.till, comesBack)
		if first.IsZero() {
			w.tb.Errorf("no good call within %v of the end of %s %s", comesBack, f.kind, f.arg)
			first = time.Now()
		}
		took = max(took, first.Sub(o.till))
		return nil
	})
	w.logf("%s %s for %v, recovered in %v", f.kind, f.arg, lasts.Round(time.Millisecond), took.Round(time.Millisecond))
	return o, took
}

// awaitGood waits for a good call that ends after the given time, and tells when it
// did, or the zero time.
func (l *load) awaitGood(from time.Time, patience time.Duration) time.Time {
	for deadline := from.Add(patience); time.Now().Before(deadline); time.Sleep(looks) {
		l.mu.Lock()
		i := len(l.ended)
		var first time.Time
		for i > 0 && l.ended[i-1].ended.After(from) {
			if i--; l.ended[i].err == nil {
				first = l.ended[i].ended
			}
		}
		l.mu.Unlock()
		if !first.IsZero() {
			return first
		}
	}
	return time.Time{}
}

// streamAgain holds a stream for so long, and then the next, until the load ends.
func (l *load) streamAgain(life time.Duration) {
	for l.ctx.Err() == nil {
		ctx, cancel := context.WithCancel(l.ctx)
		timer := time.AfterFunc(life, cancel)
		err := l.make(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
			stream, err := testpb.NewTestServiceClient(conn).FullDuplexCall(ctx)
			for err == nil {
				_, err = stream.Recv()
			}
			return err
		})
		if err != nil {
			select {
			case <-time.After(soakEvery):
			case <-l.ctx.Done():
			}
		}
		timer.Stop()
		cancel()
	}
}

// account finds a fault for every call that failed. It tells of those for which
// there is none, or whose code is not Unavailable.
func account(outages []outage, loads ...*load) (good, failed int, strangers []string) {
	for _, l := range loads {
		l.each(func(c *call) bool {
			if c.err == nil {
				good++
				return true
			}
			failed++
			explained := slices.ContainsFunc(outages, func(o outage) bool {
				return !c.ended.Before(o.from) && (c.ended.Before(o.till.Add(forgiven)) || c.ended.Before(o.from.Add(toldWithin)))
			})
			if !explained || status.Code(c.err) != codes.Unavailable {
				strangers = append(strangers, fmt.Sprintf("a call begun at %v failed at %v, during a fault or shortly after: %t: %v",
					c.begun.Format(time.StampMilli), c.ended.Format(time.StampMilli), explained, c.err))
			}
			return true
		})
	}
	return good, failed, strangers
}
