package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/bench/peers"
)

const (
	unitIdleCPU   = "cpu-us/s"
	unitServerCPU = "server-cpu-us/s"
	unitCPURatio  = "cpu-ratio"
	unitHeap      = "heap-B"
	unitHeapRatio = "heap-ratio"
	unitResident  = "resident-B"
	unitResRatio  = "resident-ratio"
)

// What idle clients hold.
const (
	holdNothing = "nothing"
	holdLease   = "lease"
	holdStream  = "stream"
)

func idle() *Scenario {
	return &Scenario{
		Name: "idle", Title: "A thousand idle channels in one process",
		Text:  "1,000 clients in one process, each with a connection and nothing to do, their server in another. They are opened over 10 s, so that whatever comes round, such as a keepalive, is as spread as in a program that has run for a while. Pools, besides, with a lease of each out; and clients with a stream of each open on which nothing is sent. 35 s after that, in which whatever doubles has doubled, the CPU time of both processes in the next 30 s is taken, for each client and second; before that heap and stacks after a garbage collection, and what the process has resident. Each row has two processes to itself and all run at the same time, so that noise of the machine falls on all alike. cpu-ratio is to keepalive, heap-ratio and resident-ratio to defaults, of the same round; where a stream is open, to those with a stream open.",
		Peers: []string{peers.Pool, peers.Scale, peers.Unsupervised, peers.Keepalive, peers.Defaults},
		Units: []string{unitIdleCPU, unitCPURatio, unitServerCPU, unitHeap, unitHeapRatio, unitResident, unitResRatio},
		Asked: true,
		run:   runIdle,
	}
}

// idleRow is one row of the tables, and its two processes.
type idleRow struct {
	peer, holds    string
	client, server *child
	held           holdings
	cpu, serverCPU time.Duration // used since mark
}

func runIdle(ctx context.Context, e *Env) error {
	rows := idleRows(e)
	defer func() {
		for _, r := range rows {
			r.stop()
		}
	}()
	n := e.clients(1000, 5)
	spread, settle := e.spread(10*time.Second, time.Millisecond), e.settle(35*time.Second, 50*time.Millisecond)
	err := inParallel(len(rows), func(i int) error {
		if err := rows[i].hold(ctx, n, spread, settle); err != nil {
			return fmt.Errorf("%s, %s: %w", rows[i].peer, rows[i].holds, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := inParallel(len(rows), func(i int) error { return rows[i].mark() }); err != nil {
		return err
	}
	sleepUntil(ctx, begin.Add(e.window(30*time.Second, 100*time.Millisecond)))
	if err := inParallel(len(rows), func(i int) error { return rows[i].mark() }); err != nil {
		return err
	}
	e.recordIdle(rows, n, time.Since(begin))
	return ctx.Err() //nolint:wrapcheck // Run does
}

func idleRows(e *Env) []*idleRow {
	var rows []*idleRow
	for _, p := range e.peers {
		rows = append(rows, &idleRow{peer: p.Name, holds: holdNothing})
		if p.Name == peers.Pool {
			rows = append(rows, &idleRow{peer: p.Name, holds: holdLease})
		}
		if p.Name != peers.Unsupervised {
			rows = append(rows, &idleRow{peer: p.Name, holds: holdStream})
		}
	}
	return rows
}

func (r *idleRow) hold(ctx context.Context, n int, spread, settle time.Duration) error {
	var err error
	if r.server, err = startChild(ctx); err != nil {
		return err
	}
	if r.client, err = spawn(ctx); err != nil {
		return err
	}
	return r.client.ask("hold", holdArgs{r.peer, r.server.address, r.holds, n, spread, settle}, &r.held)
}

// mark sets what the processes have used since the last mark, or at all.
func (r *idleRow) mark() error {
	for c, used := range map[*child]*time.Duration{r.client: &r.cpu, r.server: &r.serverCPU} {
		var total time.Duration
		if err := c.ask("cpu", struct{}{}, &total); err != nil {
			return err
		}
		*used = total - c.marked
		c.marked = total
	}
	return nil
}

func (r *idleRow) stop() {
	for _, c := range []*child{r.client, r.server} {
		if c != nil {
			c.stop()
		}
	}
}

func (e *Env) recordIdle(rows []*idleRow, n int, window time.Duration) {
	each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(n) / window.Seconds() }
	slices.SortStableFunc(rows, func(a, b *idleRow) int { // the tables are in this order
		order := []string{holdNothing, holdLease, holdStream}
		return slices.Index(order, a.holds) - slices.Index(order, b.holds)
	})
	for _, r := range rows {
		metrics := []Metric{
			{each(r.cpu), unitIdleCPU},
			{each(r.serverCPU), unitServerCPU},
			{r.held.Heap, unitHeap},
			{r.held.Resident, unitResident},
		}
		besides := holdNothing
		if r.holds == holdStream {
			besides = holdStream
		}
		for _, base := range rows {
			switch {
			case base.holds != besides:
			case base.peer == peers.Keepalive && base.cpu > 0:
				metrics = append(metrics, Metric{r.cpu.Seconds() / base.cpu.Seconds(), unitCPURatio})
			case base.peer == peers.Defaults && base.held.Heap > 0:
				metrics = append(metrics, Metric{r.held.Heap / base.held.Heap, unitHeapRatio})
				if base.held.Resident > 0 {
					metrics = append(metrics, Metric{r.held.Resident / base.held.Resident, unitResRatio})
				}
			}
		}
		e.record(fmt.Sprintf("clients=%d/held=%s", n, r.holds), r.peer, metrics...)
	}
}

type holdArgs struct {
	Peer, Address, Holds string
	Clients              int
	Spread, Settle       time.Duration
}

// holdings are what a client costs, in bytes.
type holdings struct{ Heap, Resident float64 }

// held is what a child holds until it ends.
type held struct {
	clients []peers.Client
	leases  []grpcpool.PoolClientConn
	cancel  context.CancelFunc // ends the streams
}

func (h *held) close() {
	h.cancel()
	for _, l := range h.leases {
		l.Return()
	}
	for _, c := range h.clients {
		c.Close()
	}
}

// hold makes clients, spread over a time, and leaves them alone for as long as they are to settle. What they
// cost is with what they keep after that.
func (p *process) hold(ctx context.Context, args holdArgs) (any, error) {
	peer := peers.Named(args.Peer)
	if len(peer) != 1 {
		return nil, fmt.Errorf("there is no peer %q", args.Peer)
	}
	ctx, cancel := context.WithCancel(ctx)
	p.held = &held{cancel: cancel}
	heap, resident := take().bytes, residentBytes()
	begin := time.Now()
	for i := range args.Clients {
		sleepUntil(ctx, begin.Add(args.Spread*time.Duration(i)/time.Duration(args.Clients)))
		c, err := peer[0].New(peers.Config{Target: "passthrough:///" + args.Address, Size: 10})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", args.Peer, err)
		}
		p.held.clients = append(p.held.clients, c)
		if err := p.held.use(ctx, c, args.Holds); err != nil {
			return nil, err
		}
	}
	if !sleepUntil(ctx, time.Now().Add(args.Settle)) {
		return nil, fmt.Errorf("hold: %w", ctx.Err())
	}
	heap = take().bytes - heap
	resident = residentBytes() - resident
	return holdings{heap / float64(args.Clients), resident / float64(args.Clients)}, nil
}

// use makes a client's first call and takes what it is to hold.
func (h *held) use(ctx context.Context, c peers.Client, holds string) error {
	if _, err := testpb.NewTestServiceClient(c).EmptyCall(ctx, &testpb.Empty{}); err != nil {
		return fmt.Errorf("a client's first call: %w", err)
	}
	switch holds {
	case holdLease:
		pool, ok := c.(interface {
			Get(ctx context.Context) (grpcpool.PoolClientConn, error)
		})
		if !ok {
			return errors.New("only pools have leases")
		}
		lease, err := pool.Get(ctx)
		if err != nil {
			return fmt.Errorf("a lease: %w", err)
		}
		h.leases = append(h.leases, lease)
	case holdStream:
		stream, err := testpb.NewTestServiceClient(c).FullDuplexCall(ctx)
		if err != nil {
			return fmt.Errorf("a stream: %w", err)
		}
		return echo(stream)
	}
	return nil
}

// echo sends a message and receives its answer.
func echo(stream testpb.TestService_FullDuplexCallClient) error {
	if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
		_, err = stream.Recv() // says why
		return fmt.Errorf("a message of a stream: %w", err)
	}
	if _, err := stream.Recv(); err != nil {
		return fmt.Errorf("the answer to a message of a stream: %w", err)
	}
	return nil
}
