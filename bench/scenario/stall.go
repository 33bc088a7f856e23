package scenario

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/bench/peers"
)

func stall() *Scenario {
	return &Scenario{
		Name: "stall", Title: "A process that stands still for a moment",
		Text:  "Clients with 100 open streams and calls, each client and each server in a process of its own. stalled=server: the server's is stopped by SIGSTOP for 2.5 s, while ten callers make a call every 20 ms each; all peers at the same time. stalled=client: 50 or 100 goroutines compute in the client's for ten seconds on two cores, while 50 callers call without a pause a server that takes 20 ms for a call; the peers take turns. Calls have 30 s. Streams are lost that do not answer a message afterwards. rate-ratio is of the completed calls a second to those of defaults in the same round.",
		Peers: []string{peers.Pool, peers.Scale, peers.Defaults},
		Units: []string{"lost", unitFailed, "completed", unitRate, "rate-ratio", "slowest-ms"},
		Asked: true,
		run:   runStall,
	}
}

func runStall(ctx context.Context, e *Env) error {
	streams := either(e, 100, 3)
	stop := stalling{
		name: "stalled=server",
		run:  runArgs{Callers: 10, Every: 20 * time.Millisecond, Length: either(e, 8*time.Second, 300*time.Millisecond)},
		stop: either(e, 2500*time.Millisecond, 50*time.Millisecond),
	}
	starve := func(burners int) stalling {
		return stalling{
			name: fmt.Sprintf("stalled=client/burners=%d", burners),
			run:  runArgs{Callers: 50, Length: either(e, 10*time.Second, 100*time.Millisecond), Burners: burners},
			took: 20 * time.Millisecond,
		}
	}
	if err := e.stalls(ctx, stop, streams, len(e.peers)); err != nil {
		return err
	}
	for _, burners := range either(e, []int{50, 100}, []int{4}) {
		if err := e.stalls(ctx, starve(burners), streams, 1); err != nil {
			return err
		}
	}
	return nil
}

// stalling is a case.
type stalling struct {
	name string
	run  runArgs
	took time.Duration // what a call takes on the server
	stop time.Duration // for how long the server's process stands still
}

// stalls measures every peer, so many at the same time.
func (e *Env) stalls(ctx context.Context, s stalling, streams, together int) error {
	all := make([]endured, len(e.peers))
	turns := make(chan struct{}, together)
	err := inParallel(len(e.peers), func(i int) (err error) {
		turns <- struct{}{}
		defer func() { <-turns }()
		if all[i], err = s.of(ctx, e.peers[i].Name, streams); err != nil {
			return fmt.Errorf("%s, %s: %w", e.peers[i].Name, s.name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, p := range e.peers {
		got := all[i]
		metrics := []Metric{{float64(got.Lost), "lost"}, {float64(got.Failed), unitFailed}, {float64(got.Completed), "completed"}, {got.Rate, unitRate}, {ms(got.Slowest), "slowest-ms"}}
		for j, base := range e.peers {
			if base.Name == peers.Defaults && all[j].Rate > 0 {
				metrics = append(metrics, Metric{got.Rate / all[j].Rate, "rate-ratio"})
			}
		}
		e.record(s.name, p.Name, metrics...)
	}
	return nil
}

// of is the case with one peer.
func (s stalling) of(ctx context.Context, peer string, streams int) (got endured, err error) {
	server, err := spawn(ctx)
	if err != nil {
		return got, err
	}
	defer server.stop()
	client, err := spawn(ctx)
	if err != nil {
		return got, err
	}
	defer client.stop()
	addresses, err := server.listen(listenArgs{Servers: 1, Streams: 1000, Delay: s.took})
	if err != nil {
		return got, err
	}
	if err := client.ask("load", loadArgs{peer, addresses[0], streams}, nil); err != nil {
		return got, err
	}
	var stopped sync.WaitGroup
	defer stopped.Wait()
	var stopErr error
	if s.stop > 0 {
		stopped.Go(func() { stopErr = standStill(ctx, server, s.run.Length/8, s.stop) })
	}
	err = client.ask("run", s.run, &got)
	stopped.Wait()
	return got, errors.Join(err, stopErr)
}

// standStill stops a process after a while, and has it go on after another.
func standStill(ctx context.Context, c *child, after, length time.Duration) error {
	sleepUntil(ctx, time.Now().Add(after))
	if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stopping a process: %w", err)
	}
	sleepUntil(ctx, time.Now().Add(length))
	if err := c.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		return fmt.Errorf("having a process go on: %w", err)
	}
	return nil
}

type loadArgs struct {
	Peer, Address string
	Streams       int
}

// busy is a client with open streams, which a child holds until it ends.
type busy struct {
	client  peers.Client
	streams []testpb.TestService_FullDuplexCallClient
	cancel  context.CancelFunc // ends the streams
}

func (l *busy) close() {
	l.cancel()
	l.client.Close()
}

func (p *process) load(ctx context.Context, args loadArgs) (any, error) {
	peer := peers.Named(args.Peer)
	if len(peer) != 1 {
		return nil, fmt.Errorf("there is no peer %q", args.Peer)
	}
	c, err := peer[0].New(peers.Config{Target: "passthrough:///" + args.Address, Size: 10})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", args.Peer, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	p.busy = &busy{client: c, cancel: cancel}
	for range args.Streams {
		stream, err := testpb.NewTestServiceClient(c).FullDuplexCall(ctx)
		if err != nil {
			return nil, fmt.Errorf("a stream: %w", err)
		}
		if err := echo(stream); err != nil {
			return nil, err
		}
		p.busy.streams = append(p.busy.streams, stream)
	}
	return nil, nil //nolint:nilnil // there is nothing to say
}

type runArgs struct {
	Callers, Burners int
	Every, Length    time.Duration
}

// endured is what came of the calls and the streams.
type endured struct {
	Lost, Failed, Completed int
	Slowest                 time.Duration

	// Rate is how many calls a second were completed: each caller's over its own time, as
	// few calls of many callers end in waves.
	Rate float64
}

// run calls for a time, and computes until the last call has ended. Then it sees which
// streams still answer.
func (p *process) run(ctx context.Context, args runArgs) (any, error) {
	if p.busy == nil {
		return nil, errors.New("run: there is no client")
	}
	if args.Burners > 0 {
		runtime.GOMAXPROCS(2)
	}
	var burning sync.WaitGroup
	var called atomic.Bool
	for range args.Burners {
		burning.Go(func() { burn(&called) })
	}
	got := p.busy.call(ctx, args)
	called.Store(true)
	burning.Wait()
	got.Lost = p.busy.lost()
	return got, nil
}

// call has callers call for a time, and waits for their last calls.
func (l *busy) call(ctx context.Context, args runArgs) (got endured) {
	client := testpb.NewTestServiceClient(l.client)
	begin := time.Now()
	var mu sync.Mutex // guards got
	_ = inParallel(args.Callers, func(int) error {
		completed := 0
		now := begin
		for ; now.Before(begin.Add(args.Length)); now = time.Now() {
			callCtx, cancel := context.WithTimeout(ctx, 30*time.Second)
			_, err := client.EmptyCall(callCtx, &testpb.Empty{})
			cancel()
			mu.Lock()
			got.Slowest = max(got.Slowest, time.Since(now))
			if err != nil {
				got.Failed++
			} else {
				completed++
			}
			mu.Unlock()
			sleepUntil(ctx, now.Add(args.Every))
		}
		mu.Lock()
		defer mu.Unlock()
		got.Completed += completed
		got.Rate += float64(completed) / now.Sub(begin).Seconds()
		return nil
	})
	return got
}

// lost counts the streams that do not answer a message within five seconds.
func (l *busy) lost() int {
	timer := time.AfterFunc(5*time.Second, l.cancel)
	defer timer.Stop()
	var n atomic.Int64
	_ = inParallel(len(l.streams), func(i int) error {
		if echo(l.streams[i]) != nil {
			n.Add(1)
		}
		return nil
	})
	return int(n.Load())
}

// burn computes until it is done.
func burn(done *atomic.Bool) {
	for x := uint64(1); !done.Load(); sink.Store(x) {
		for range 1 << 20 {
			x = x*6364136223846793005 + 1442695040888963407
		}
	}
}

// sink keeps the compiler from leaving out what is computed.
var sink atomic.Uint64
