package scale_test

import (
	"context"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

func newBudget(t *testing.T, underWay int, perSecond float64) *scale.DialBudget {
	t.Helper()
	b, err := scale.NewDialBudget(underWay, perSecond)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestABudgetOutOfRangeIsAnError(t *testing.T) {
	for _, tc := range []struct {
		underWay  int
		perSecond float64
		good      bool
	}{
		{0, 0, true},
		{1, 1e-300, true},
		{math.MaxInt, math.MaxFloat64, true},
		{-1, 0, false},
		{0, -1, false},
		{0, math.NaN(), false},
		{0, math.Inf(1), false},
	} {
		if _, err := scale.NewDialBudget(tc.underWay, tc.perSecond); (err == nil) != tc.good {
			t.Errorf("NewDialBudget(%d, %v): %v", tc.underWay, tc.perSecond, err)
		}
	}
}

// dialCounter is a dialer that counts what is under way: its dials take a while, or fail.
type dialCounter struct {
	network *inMemory
	takes   func() time.Duration
	fails   func() bool

	mu    sync.Mutex // guards what follows
	ctxs  map[context.Context]struct{}
	most  int
	begun []time.Time
}

func (d *dialCounter) dial(ctx context.Context, addr string) (net.Conn, error) {
	d.mu.Lock()
	d.ctxs[ctx] = struct{}{}
	d.begun = append(d.begun, time.Now())
	underWay := 0
	for other := range d.ctxs {
		if other.Err() == nil { // otherwise it was given up, and will return
			underWay++
		}
	}
	d.most = max(d.most, underWay)
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.ctxs, ctx)
	}()
	timer := time.NewTimer(d.takes())
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if d.fails() {
		return nil, net.ErrClosed
	}
	return d.network.dial(ctx, addr)
}

// busiest is the most dials that were begun in any d.
func (d *dialCounter) busiest(in time.Duration) (most int) {
	first := 0
	for i, at := range d.begun {
		for at.Sub(d.begun[first]) >= in {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// Two hundred channels are made, called, replaced, cut and closed at random.
func TestABudgetBoundsTheDialsOfManyChannels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const channels, underWay, perSecond = 200, 7, 50
		b := newBudget(t, underWay, perSecond)
		network := newInMemory()
		startServer(t, serverConfig{listener: network, limit: 2})
		d := &dialCounter{
			network: network, ctxs: make(map[context.Context]struct{}),
			takes: func() time.Duration { return time.Duration(rand.Int64N(int64(100 * time.Millisecond))) },
			fails: func() bool { return rand.IntN(5) == 0 },
		}
		var replacer scale.Replacer
		var wg sync.WaitGroup
		for range channels {
			wg.Go(func() {
				for range 1 + rand.IntN(3) {
					c := newChannel(t, "passthrough:///memory", grpc.WithContextDialer(d.dial),
						scale.WithDialBudget(b), scale.WithReplacer(&replacer), scale.WithMaxConnections(3))
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(20*time.Second))))
					hammer(ctx, c.stub, 1+rand.IntN(5), 3, grpc.WaitForReady(rand.IntN(2) == 0))
					if rand.IntN(10) == 0 {
						replacer.Replace("a test", time.Second)
					}
					cancel()
					_ = c.Close()
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if b.UnderWay() != 0 || b.Waiting() != 0 {
			t.Errorf("when every channel is closed, %d dials are under way and %d wait", b.UnderWay(), b.Waiting())
		}
		if d.most > underWay {
			t.Errorf("%d dials were under way at once, want %d at most", d.most, underWay)
		}
		if n := d.busiest(time.Second); n > perSecond+perSecond/10+1 {
			t.Errorf("%d dials in one second, want %d and a tenth more at most", n, perSecond)
		}
		if len(d.begun) < channels {
			t.Errorf("%d dials for %d channels", len(d.begun), channels)
		}
	})
}

// silentNetwork is a network with a server that never begins HTTP/2.
func silentNetwork(t *testing.T) *inMemory {
	t.Helper()
	network, _ := strictInMemory(t, h2test.WithFault(h2test.Silent))
	return network
}

func TestClosingAChannelGivesItsPlacesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(t, 1, 0)
		hanging := silentNetwork(t).channel(t, scale.WithDialBudget(b))
		network := newInMemory()
		startServer(t, serverConfig{listener: network})
		waiting := network.channel(t, scale.WithDialBudget(b))
		abandoned := network.channel(t, scale.WithDialBudget(b))
		hanging.Connect()
		synctest.Wait()
		for _, c := range []*channel{waiting, abandoned} {
			c.Connect()
			synctest.Wait()
		}
		if b.UnderWay() != 1 || b.Waiting() != 2 {
			t.Errorf("%d dials are under way and %d wait, want 1 and 2", b.UnderWay(), b.Waiting())
		}
		_ = abandoned.Close()
		if b.Waiting() != 1 {
			t.Errorf("%d dials wait when one channel of two is closed", b.Waiting())
		}
		begun := time.Now()
		_ = hanging.Close()
		mustHammer(t, waiting.stub, 1, 1)
		if took := time.Since(begun); took > 0 {
			t.Errorf("the channel that waited was served %v after the other was closed", took)
		}
		if network.dials.Load() != 1 || b.UnderWay() != 0 || b.Waiting() != 0 {
			t.Errorf("%d dials; %d under way, %d wait", network.dials.Load(), b.UnderWay(), b.Waiting())
		}
	})
}

// With one place in all, a server that hangs keeps it for 20 seconds, and then another has
// its turn, though the first wants to dial again.
func TestAServerThatHangsDoesNotStarveOtherChannels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(t, 1, 0)
		hanging := silentNetwork(t).channel(t, scale.WithDialBudget(b))
		stop := callers(t, hanging.stub, 3)
		defer stop()
		synctest.Wait()
		network := newInMemory()
		startServer(t, serverConfig{listener: network})
		for range 5 {
			begun := time.Now()
			c := network.channel(t, scale.WithDialBudget(b))
			mustWait(t, c)
			if took := time.Since(begun); took > 21*time.Second {
				t.Errorf("another channel waited for %v", took)
			}
			_ = c.Close()
			elapse(time.Second)
		}
	})
}

func mustWait(t *testing.T, c *channel) {
	t.Helper()
	if _, err := c.stub.EmptyCall(t.Context(), &testpb.Empty{}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
}

// Channels take turns: one with many dials does not keep another waiting for all of them.
func TestChannelsTakeTurnsInABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(t, 1, 0)
		network := newInMemory()
		network.dialTime = time.Second
		startServer(t, serverConfig{listener: network, limit: 1, delay: time.Minute})
		greedy := network.channel(t, scale.WithDialBudget(b), scale.WithMaxConnections(10))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { _, _ = greedy.stub.EmptyCall(ctx, &testpb.Empty{}) })
		}
		elapse(1500 * time.Millisecond) // the first connection stands, and nine more are wanted
		if b.Waiting() != 8 {
			t.Errorf("%d dials wait, want 8", b.Waiting())
		}
		modest := network.channel(t, scale.WithDialBudget(b))
		modest.Connect()
		elapse(3 * time.Second)
		if modest.connections() != 1 {
			t.Error("a channel with one dial waits for all of another one's")
		}
		cancel()
		wg.Wait()
		_, _ = greedy.Close(), modest.Close()
		elapse(time.Second) // in which a dial returns that is not needed any more
	})
}

// A dial that waits for its place is not late, however long that takes.
func TestADialThatWaitsForTheBudgetIsNotGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(t, 0, 0.01) // one in 100 s
		network := newInMemory()
		startServer(t, serverConfig{listener: network})
		mustWait(t, network.channel(t, scale.WithDialBudget(b)))
		second := network.channel(t, scale.WithDialBudget(b))
		var served atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := second.stub.EmptyCall(t.Context(), &testpb.Empty{})
			served.Store(err == nil)
		})
		elapse(99 * time.Second)
		if b.Waiting() != 1 || network.dials.Load() != 1 {
			t.Errorf("after 99 s %d dials wait, and %d were begun", b.Waiting(), network.dials.Load())
		}
		wg.Wait()
		if !served.Load() {
			t.Error("the call on the channel whose dial waited has failed")
		}
		if sub := second.observer.Snapshot().Subchannels[0]; sub.Failed != 0 {
			t.Errorf("a dial has failed: %+v", sub)
		}
	})
}

// Successors count too.
func TestSuccessorsWaitForTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(t, 1, 0)
		network := newInMemory()
		startServer(t, serverConfig{listener: network})
		var replacer scale.Replacer
		c := network.channel(t, scale.WithDialBudget(b), scale.WithReplacer(&replacer))
		mustHammer(t, c.stub, 1, 1)
		hanging := silentNetwork(t).channel(t, scale.WithDialBudget(b))
		hanging.Connect()
		synctest.Wait()
		replacer.Replace("a test", 0)
		elapse(time.Second)
		if n := network.dials.Load(); n != 1 || b.Waiting() != 1 {
			t.Errorf("%d dials, and %d wait", n, b.Waiting())
		}
		_ = hanging.Close()
		elapse(time.Second)
		if n := c.observer.Snapshot().Subchannels[0].Replaced; n != 1 {
			t.Errorf("%d connections were replaced", n)
		}
	})
}

// Ten calls want ten connections of a server whose limit is known to be 1. However few of
// the dials may begin, callers are told how the first ones have ended.
func TestCallersAreToldThoughDialsWaitForTheBudget(t *testing.T) {
	for name, tc := range map[string]struct {
		underWay  int
		perSecond float64
		most      time.Duration // for the server that is silent
	}{
		"no bound":                {0, 0, 3 * time.Second},
		"one dial under way":      {1, 0, 3 * time.Second},
		"three dials under way":   {3, 0, 3 * time.Second},
		"one dial in each second": {0, 1, 5 * time.Second}, // the one begun last is late, too
	} {
		for fault, most := range map[string]time.Duration{"silent": tc.most, "dark": time.Second, "refused": time.Second} {
			t.Run(name+", "+fault, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					network, s := strictInMemory(t, h2test.WithLimit(1))
					link := grpcpooltest.NewLink(network.dial)
					b := newBudget(t, tc.underWay, tc.perSecond)
					c := newChannel(t, "passthrough:///memory", grpc.WithContextDialer(link.Dial), scale.WithDialBudget(b))
					mustHammer(t, c.stub, 1, 1)
					elapse(time.Minute)
					s.SetFault(h2test.Silent)
					network.refuse.Store(fault == "refused")
					link.Drop(fault == "dark", fault == "dark")
					link.Reset()
					begun := time.Now()
					var calls sync.WaitGroup
					for range 10 {
						calls.Go(func() {
							if _, err := c.stub.EmptyCall(t.Context(), &testpb.Empty{}); err == nil {
								t.Error("a call succeeded")
							}
						})
					}
					calls.Wait()
					if took := time.Since(begun); took > most {
						t.Errorf("the last call was told after %v, want %v at most", took, most)
					}
					_ = c.Close()
					synctest.Wait()
					if b.UnderWay() != 0 || b.Waiting() != 0 {
						t.Errorf("%d dials are under way and %d wait", b.UnderWay(), b.Waiting())
					}
				})
			})
		}
	}
}

// A dial that goes on because the network may be slow, and the one beside it, which waits
// for the only place: the first is given up when its time is over, as ever.
func TestADialThatGoesOnIsGivenUpThoughTheOneBesideItHasNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newInMemory()
		startServer(t, serverConfig{listener: network})
		link := grpcpooltest.NewLink(network.dial)
		c := newChannel(t, "passthrough:///memory", grpc.WithContextDialer(link.Dial), grpc.WithIdleTimeout(0),
			scale.WithDialBudget(newBudget(t, 1, 0)))
		mustHammer(t, c.stub, 1, 1)
		link.Drop(true, true)
		link.Reset()
		stop := callers(t, c.stub, 1)
		elapse(15 * time.Second) // twelve dials have got no answer, and more are tried for longer
		before := c.observer.Snapshot().Subchannels[0].Failed
		elapse(12 * time.Second)
		if n := c.observer.Snapshot().Subchannels[0].Failed - before; n < 1 {
			t.Errorf("%d dials were given up in 12 s", n)
		}
		stop()
		link.Heal()
	})
}
