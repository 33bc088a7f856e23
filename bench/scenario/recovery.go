package scenario

import (
	"context"
	"time"

	"github.com/davidwartell/go-grpcpool/bench/peers"
)

func recovery() *Scenario {
	return &Scenario{
		Name: "recovery", Title: "A server that goes down and comes back",
		Text:     "The server is down for 1 s or 30 s: its port refuses connections. Each client makes a call every 20 ms (fail-fast, one at a time, at most a second) and all peers do at the same time. From when the server listens again: until a client's first good call, and until its last failed one has ended. Clients that had none are given the time that was waited (5 s, 25 s).",
		Peers:    peersThatRecover(),
		Units:    []string{"firstgood-ms", unitBad},
		Rounds:   5,
		Together: true,
		run:      runRecovery,
	}
}

func peersThatRecover() []string {
	return []string{peers.Pool, peers.Plain, peers.Defaults, peers.RoundRobin, peers.Least, peers.GCP, peers.API, peers.Exclusive}
}

func runRecovery(ctx context.Context, e *Env) error {
	type outage struct {
		name       string
		down, wait time.Duration
	}
	outages := []outage{{"down=1s", time.Second, 5 * time.Second}, {"down=30s", 30 * time.Second, 25 * time.Second}}
	if e.Quick {
		outages = []outage{{"down=100ms", 100 * time.Millisecond, 1500 * time.Millisecond}}
	}
	return inParallel(len(outages), func(i int) error {
		o := outages[i]
		s, err := start(ctx, nil)
		if err != nil {
			return err
		}
		running, err := e.probe(ctx, e.Rounds, prober{1, 20 * time.Millisecond, time.Second}, func() peers.Config {
			return peers.Config{Target: s.target(), Size: 10}
		})
		if err != nil {
			return err
		}
		sleepUntil(ctx, running.zero.Add(either(e, time.Second, 200*time.Millisecond)))
		s.stop()
		sleepUntil(ctx, time.Now().Add(o.down))
		if err := s.start(ctx); err != nil {
			running.end()
			return err
		}
		back := running.now()
		sleepUntil(ctx, time.Now().Add(o.wait))
		calls := running.end()
		s.stop()
		e.recordRecovery(o.name, calls, back, o.wait)
		return nil
	})
}

func (e *Env) recordRecovery(name string, calls map[string][][]Call, back, wait time.Duration) {
	for peer, clients := range calls {
		for i, calls := range clients {
			calls = shifted(calls, back)
			first, last := wait, time.Duration(0)
			for _, c := range calls {
				end := c.At + c.Took
				switch {
				case end >= wait: // ended with the probing
				case !c.Failed && end >= 0:
					first = min(first, end)
				case c.Failed:
					last = max(last, end)
				}
			}
			e.record(name, peer, Metric{ms(first), "firstgood-ms"}, Metric{ms(last), unitBad})
			if i == 0 {
				e.Trace(Trace{e.scenario.Name, name, peer, calls})
			}
		}
	}
}
