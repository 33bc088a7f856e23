package scenario

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/davidwartell/go-grpcpool/bench/peers"
)

const unitWaited = "waited/s"

func rotation() *Scenario {
	return &Scenario{
		Name: "rotation", Title: "A server that ends connections by age",
		Text:   "MaxConnectionAge is 1 s (gRPC spreads it by a tenth), a dial takes 50 ms, N is 10; four callers a peer with a call every 5 ms each, all peers at the same time. A call waited for a dial if it went over a connection that did not stand yet when the call began. Ours learns the age from the first two connections, so the first four seconds are not counted (for any peer).",
		Peers:  []string{peers.Pool, peers.Plain, peers.RoundRobin, peers.Least, peers.GCP, peers.API, peers.Exclusive},
		Units:  []string{unitWaited, unitP50, unitP99, unitP999, unitFailed},
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
	dials := newDialLog()
	running, err := e.probe(ctx, 1, prober{4, 5 * time.Millisecond, 5 * time.Second}, func() peers.Config {
		return peers.Config{Target: s.target(), Size: 10, Options: []grpc.DialOption{dials.option()}}
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
			if dials.at(c.local).After(running.zero.Add(c.At)) {
				waited++
			}
			all = append(all, c.Took)
		}
		e.record("age=1s", peer, append(latencies(all), Metric{float64(waited) / measured.Seconds(), unitWaited}, Metric{float64(failed), unitFailed})...)
		if e.Round == 0 {
			e.Trace(Trace{e.scenario.Name, "age=1s", peer, clients[0]})
		}
	}
	return nil
}

// dialLog is when connections came to stand, by the address of this side.
type dialLog struct {
	mu    sync.Mutex // guards stood
	stood map[string]time.Time
}

func newDialLog() *dialLog { return &dialLog{stood: map[string]time.Time{}} }

// option is slowDial, noted.
func (d *dialLog) option() grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := dialSlowly(ctx, address)
		if err == nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.stood[conn.LocalAddr().String()] = time.Now()
		}
		return conn, err
	})
}

func (d *dialLog) at(local string) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stood[local]
}
