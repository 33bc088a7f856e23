package scenario

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/bench/cpu"
	"github.com/davidwartell/go-grpcpool/bench/peers"
)

func open() *Scenario {
	return &Scenario{
		Name: "open", Title: "What it costs to open a channel",
		Text:  "A client is made, connects and makes its first call: 500 one after the other (closed before the next is opened, which counts), and 5,000 at once (closed when all have had an answer, which does not count). The CPU time of the client's process for each, and how many times that of defaults it is in the same round; the server is in another process. A first call that fails is made again 100 ms later, and counted.",
		Peers: []string{peers.Pool, peers.OneFactory, peers.Scale, peers.Defaults},
		Units: []string{unitCPU, unitCPURatio, unitFailed, "all-ms"},
		Asked: true,
		run:   runOpen,
	}
}

func runOpen(ctx context.Context, e *Env) error {
	server, err := spawn(ctx)
	if err != nil {
		return err
	}
	defer server.stop()
	secure, err := newKeys()
	if err != nil {
		return err
	}
	for _, c := range []openArgs{
		{Clients: either(e, 500, 5)},
		{Clients: either(e, 500, 5), Keys: secure},
		{Clients: e.clients(5000, 5), AtOnce: true},
		{Clients: e.clients(5000, 5), AtOnce: true, Keys: secure},
	} {
		if err := e.openings(ctx, server, c); err != nil {
			return err
		}
	}
	return nil
}

// openings measures every peer at one case.
func (e *Env) openings(ctx context.Context, server *child, args openArgs) error {
	all := make(map[string]opened, len(e.peers))
	for _, p := range e.peers {
		// Each its own server, so that no port is one that another client has just used.
		addresses, err := server.listen(listenArgs{Servers: 1, Keys: args.Keys})
		if err != nil {
			return err
		}
		args.Peer, args.Address = p.Name, addresses[0]
		if all[p.Name], err = openIn(ctx, args); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	for _, p := range e.peers {
		o := all[p.Name]
		metrics := []Metric{{us(o.CPU) / float64(args.Clients), unitCPU}, {float64(o.Failed), unitFailed}, {ms(o.Took), "all-ms"}}
		if base := all[peers.Defaults].CPU; base > 0 {
			metrics = append(metrics, Metric{o.CPU.Seconds() / base.Seconds(), unitCPURatio})
		}
		e.record(args.name(), p.Name, metrics...)
	}
	return nil
}

// openIn opens in a new process.
func openIn(ctx context.Context, args openArgs) (o opened, err error) {
	client, err := spawn(ctx)
	if err != nil {
		return o, err
	}
	defer client.stop()
	return o, client.ask("open", args, &o)
}

type openArgs struct {
	Peer, Address string
	Clients       int
	AtOnce        bool
	Keys          *keys // nil: plaintext
}

func (a openArgs) name() string {
	how, creds := "sequential", "plaintext"
	if a.AtOnce {
		how = "atonce"
	}
	if a.Keys != nil {
		creds = "mtls"
	}
	return fmt.Sprintf("clients=%d/opened=%s/creds=%s", a.Clients, how, creds)
}

type opened struct {
	CPU, Took time.Duration // of all
	Failed    int
}

func (p *process) open(ctx context.Context, args openArgs) (any, error) {
	peer := peers.Named(args.Peer)
	if len(peer) != 1 {
		return nil, fmt.Errorf("there is no peer %q", args.Peer)
	}
	creds, err := args.Keys.client()
	if err != nil {
		return nil, err
	}
	config := peers.Config{Target: "passthrough:///" + args.Address, Creds: creds, Size: 10}
	if config.Factory, err = peers.NewFactory(config); err != nil { //nolint:contextcheck // it dials nothing
		return nil, err //nolint:wrapcheck // says what it was
	}
	o := opener{peer: peer[0], config: config, until: time.Now().Add(5 * time.Minute)}
	for range 3 { // what the first of a process loads and grows
		c, err := o.open(ctx)
		if err != nil {
			return nil, err
		}
		c.Close()
	}
	o.failed.Store(0)
	begin, used := time.Now(), cpu.Time()
	if args.AtOnce {
		clients := make([]peers.Client, args.Clients)
		err = inParallel(args.Clients, func(i int) (err error) {
			clients[i], err = o.open(ctx)
			return err
		})
		defer closeAll(clients)
	} else {
		for i := 0; i < args.Clients && err == nil; i++ {
			var c peers.Client
			if c, err = o.open(ctx); err == nil {
				c.Close()
			}
		}
	}
	return opened{cpu.Time() - used, time.Since(begin), int(o.failed.Load())}, err
}

type opener struct {
	peer   peers.Peer
	config peers.Config
	until  time.Time // a client that has no answer by then is an error
	failed atomic.Int64
}

// open makes a client and calls until a call is answered.
func (o *opener) open(ctx context.Context) (peers.Client, error) {
	c, err := o.peer.New(o.config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.peer.Name, err)
	}
	for {
		_, err := testpb.NewTestServiceClient(c).EmptyCall(ctx, &testpb.Empty{})
		if err == nil {
			return c, nil
		}
		o.failed.Add(1)
		if again := time.Now().Add(100 * time.Millisecond); again.After(o.until) || !sleepUntil(ctx, again) {
			c.Close()
			return nil, fmt.Errorf("a client's first call: %w", err)
		}
	}
}

// closeAll closes those that there are.
func closeAll(clients []peers.Client) {
	for _, c := range clients {
		if c != nil {
			c.Close()
		}
	}
}
