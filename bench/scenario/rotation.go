package scenario

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/davidwartell/go-grpcpool/bench/peers"
)

const unitWaited = "waited-calls/s"

func rotation() *Scenario {
	return &Scenario{
		Name: "rotation", Title: "A server that ends connections by age",
		Text:   "MaxConnectionAge is 1 s (gRPC spreads it by a tenth), a dial takes 50 ms, N is 10; four callers a peer with a call every 5 ms each, all peers at the same time. A call that took 45 ms or more waited for a dial. Ours learns the age from the first two connections, so the first four seconds are not counted (for any peer).",
		Peers:  []string{peers.Pool, peers.Plain, peers.RoundRobin, peers.Least, peers.GCP, peers.API, peers.Exclusive},
		Units:  []string{unitWaited, unitP50, unitP99, unitP999, "failed"},
		Rounds: 5,
		run:    runRotation,
	}
}

func runRotation(ctx context.Context, e *Env) error {
	s, err := start(ctx, nil, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: time.Second, MaxConnectionAgeGrace: time.Second}))
	if err != nil {
		return err
	}
	defer s.stop()
	running, err := e.probe(ctx, 1, prober{4, 5 * time.Millisecond, 5 * time.Second}, func() peers.Config {
		return peers.Config{Target: s.target(), Size: 10, Options: []grpc.DialOption{slowDial()}}
	})
	if err != nil {
		return err
	}
	learning, measured := either(e, 4*time.Second, 100*time.Millisecond), either(e, 4*time.Second, 1100*time.Millisecond)
	sleepUntil(ctx, running.zero.Add(learning+measured))
	for peer, clients := range running.end() {
		var all []time.Duration
		waited, failed := 0, 0
		for _, c := range clients[0] {
			switch {
			case c.At < learning || c.At+c.Took >= learning+measured:
				continue
			case c.Failed:
				failed++
			}
			if c.Took >= 45*time.Millisecond {
				waited++
			}
			all = append(all, c.Took)
		}
		metrics := []Metric{{float64(waited) / measured.Seconds(), unitWaited}, {float64(failed), "failed"}}
		e.record("age=1s", peer, append(metrics, latencies(all)...)...)
		if e.Round == 0 {
			e.Trace(Trace{e.scenario.Name, "age=1s", peer, clients[0]})
		}
	}
	return nil
}
