package scenario

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/bench/peers"
)

const unitFirstGood = "firstgood-ms"

func restart() *Scenario {
	return &Scenario{
		Name: "restart", Title: "The first good call after a restart",
		Text:     "A server's port refuses connections for 50 ms, 200 ms, 1 s or 30 s (10 % more or less). Each client has a server of its own, in another process, and makes a call every 10 ms (20 ms where the outage is one of 30 s; fail-fast, one at a time, at most a second); its server goes down at a moment of its own. From when the server listens again until the client's first good call has ended, at most 30 s; and how many times it dialled in the outage and until then. Three clients of each peer in a round, all peers at the same time.",
		Peers:    []string{peers.Pool, peers.Scale, peers.Defaults, peers.Fixed100ms, peers.Fixed1s},
		Units:    []string{unitFirstGood, "dials"},
		Asked:    true,
		Together: true,
		run:      runRestart,
	}
}

// outage is how long a server is down, and how its clients call.
type outage struct {
	down, every, wait time.Duration

	rounds, clients int // one round after another; clients of each peer in one
}

func runRestart(ctx context.Context, e *Env) error {
	const wait = 30 * time.Second
	outages := []outage{
		{50 * time.Millisecond, 10 * time.Millisecond, wait, e.Rounds, 3},
		{200 * time.Millisecond, 10 * time.Millisecond, wait, e.Rounds, 3},
		{time.Second, 10 * time.Millisecond, wait, e.Rounds, 3},
	}
	long := []outage{{30 * time.Second, 20 * time.Millisecond, wait, 1, 3 * e.Rounds}}
	if e.Quick {
		outages, long = []outage{{20 * time.Millisecond, 10 * time.Millisecond, wait, 1, 1}}, nil
	}
	return inParallel(2, func(i int) error {
		for _, o := range [][]outage{outages, long}[i] {
			if err := e.restarts(ctx, o); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e *Env) restarts(ctx context.Context, o outage) error {
	servers, err := spawn(ctx)
	if err != nil {
		return err
	}
	defer servers.stop()
	n := o.clients * len(e.peers)
	for range o.rounds {
		addresses, err := servers.listen(listenArgs{Servers: n, Host: elsewhere()})
		if err != nil {
			return err
		}
		err = inParallel(n, func(i int) error {
			r := restarted{outage: o, servers: servers, address: addresses[i]}
			return r.run(ctx, e, e.peers[i%len(e.peers)])
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// elsewhere is a loopback address from which nothing dials, so that the port of a server
// that is down is not taken by a connection of another. Only Linux has more than one.
func elsewhere() string {
	if runtime.GOOS == "linux" {
		return "127.0.0.2"
	}
	return "127.0.0.1"
}

// restarted is a server that restarts and its client.
type restarted struct {
	outage

	servers *child
	address string
	dials   atomic.Int64
	gone    atomic.Int64 // when it was down, in Unix nanoseconds; 0 before that
}

func (r *restarted) run(ctx context.Context, e *Env, p peers.Peer) error {
	c, err := p.New(peers.Config{Target: "passthrough:///" + r.address, Size: 10, Options: []grpc.DialOption{grpc.WithContextDialer(r.dial)}})
	if err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	defer c.Close()
	if _, err := testpb.NewTestServiceClient(c).EmptyCall(ctx, &testpb.Empty{}); err != nil {
		return fmt.Errorf("%s: its first call: %w", p.Name, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	good := make(chan time.Time, 1)
	go func() { good <- r.firstGood(ctx, c) }()
	back, err := r.restart(ctx)
	if err != nil {
		cancel()
		<-good
		return err
	}
	defer time.AfterFunc(r.wait, cancel).Stop()
	first := r.wait
	if at := <-good; !at.IsZero() {
		first = min(first, at.Sub(back))
	}
	e.record(fmt.Sprintf("down=%v", r.down), p.Name, Metric{ms(first), unitFirstGood}, Metric{float64(r.dials.Load()), "dials"})
	return nil
}

// restart is the outage. It returns when the server listened again.
func (r *restarted) restart(ctx context.Context) (back time.Time, err error) {
	// Whatever the client does once in a while, it does not do it at this moment.
	sleepUntil(ctx, time.Now().Add(300*time.Millisecond+rand.N(500*time.Millisecond))) //nolint:gosec // no secret
	if err := r.servers.ask("down", r.address, nil); err != nil {
		return back, err
	}
	r.dials.Store(0)
	r.gone.Store(time.Now().UnixNano())
	sleepUntil(ctx, time.Now().Add(r.down*9/10+rand.N(r.down/5))) //nolint:gosec // no secret
	var listened int64
	err = r.servers.ask("up", r.address, &listened)
	return time.Unix(0, listened), err
}

// firstGood calls until a call that began in the outage or after it is good, and returns
// when it ended; the zero time if ctx ends before.
func (r *restarted) firstGood(ctx context.Context, c peers.Client) time.Time {
	client := testpb.NewTestServiceClient(c)
	for next := time.Now(); sleepUntil(ctx, next); {
		begin := time.Now()
		next = begin.Add(r.every)
		callCtx, cancel := context.WithTimeout(ctx, time.Second)
		_, err := client.EmptyCall(callCtx, &testpb.Empty{})
		cancel()
		if gone := r.gone.Load(); err == nil && gone != 0 && begin.UnixNano() > gone {
			return time.Now()
		}
	}
	return time.Time{}
}

func (r *restarted) dial(ctx context.Context, address string) (net.Conn, error) {
	r.dials.Add(1)
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}
