package scenario

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/davidwartell/go-grpcpool/bench/peers"
)

const unitBad = "lastbad-ms"

func stuck() *Scenario {
	return &Scenario{
		Name: "stuck", Title: "A server process that stops answering",
		Text:     "SIGSTOP: the kernel goes on accepting connections and acknowledging data. With one backend: how long a call that has 30 s hangs until it fails. With two (round_robin over both, except grpcgcp, which is an LB policy itself), four callers of which each makes a call every 50 ms with a timeout of 1 s: until the last call that failed has ended, and how many failed. All peers at the same time; after 18 s the wait is over, and 18 s is what a peer is given for which it was not.",
		Peers:    peersThatRecover(),
		Units:    []string{"hang-ms", unitBad, unitFailed},
		Rounds:   5,
		Together: true,
		run:      runStuck,
	}
}

func runStuck(ctx context.Context, e *Env) error {
	stopped, err := startChild(ctx)
	if err != nil {
		return err
	}
	defer stopped.stop()
	other, err := startChild(ctx)
	if err != nil {
		return err
	}
	defer other.stop()

	one, err := e.probe(ctx, e.Rounds, prober{1, 50 * time.Millisecond, 30 * time.Second}, func() peers.Config {
		return peers.Config{Target: "passthrough:///" + stopped.address, Size: 4}
	})
	if err != nil {
		return err
	}
	defer one.end()
	two, err := e.probe(ctx, e.Rounds, prober{4, 50 * time.Millisecond, time.Second}, func() peers.Config {
		return twoBackends(stopped.address, other.address)
	})
	if err != nil {
		return err
	}
	defer two.end()

	sleepUntil(ctx, one.zero.Add(either(e, 2*time.Second, 300*time.Millisecond)))
	if err := stopped.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stopping the server process: %w", err)
	}
	atOne, atTwo := one.now(), two.now()
	wait := either(e, 18*time.Second, 2500*time.Millisecond)
	sleepUntil(ctx, time.Now().Add(wait))
	e.recordStuck(one.end(), atOne, two.end(), atTwo, wait)
	return nil
}

func twoBackends(a, b string) peers.Config {
	r := manual.NewBuilderWithScheme("two")
	r.InitialState(resolver.State{Endpoints: []resolver.Endpoint{
		{Addresses: []resolver.Address{{Addr: a}}}, {Addresses: []resolver.Address{{Addr: b}}},
	}, Addresses: []resolver.Address{{Addr: a}, {Addr: b}}})
	return peers.Config{Target: "two:///backends", Size: 4, Options: []grpc.DialOption{
		grpc.WithResolvers(r), grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
	}}
}

func (e *Env) recordStuck(one map[string][][]Call, atOne time.Duration, two map[string][][]Call, atTwo, wait time.Duration) {
	for peer, clients := range one {
		for _, calls := range clients {
			hang := wait
			for _, c := range shifted(calls, atOne) {
				if end := c.At + c.Took; c.Failed && end >= 0 {
					hang = min(hang, end)
				}
			}
			e.record("backends=1", peer, Metric{ms(hang), "hang-ms"})
		}
	}
	for peer, clients := range two {
		for i, calls := range clients {
			calls = shifted(calls, atTwo)
			last, failed := lastBad(calls, wait)
			e.record("backends=2", peer, Metric{ms(last), unitBad}, Metric{float64(failed), unitFailed})
			if i == 0 {
				e.Trace(Trace{e.scenario.Name, "backends=2", peer, calls})
			}
		}
	}
}

// lastBad is when the last call that failed ended, at the latest at the end of the
// wait, and how many failed. Those that the end of the wait cut off count if they
// had hung for half their timeout by then.
func lastBad(calls []Call, wait time.Duration) (last time.Duration, failed int) {
	for _, c := range calls {
		end := c.At + c.Took
		if !c.Failed || end < 0 || end >= wait && c.Took < time.Second/2 {
			continue
		}
		failed++
		last = max(last, min(end, wait))
	}
	return last, failed
}
