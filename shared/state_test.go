package shared_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/shared"
)

// clientConn is what programs that can do without the type ask a *grpc.ClientConn for.
type clientConn interface {
	grpc.ClientConnInterface
	GetState() connectivity.State
	WaitForStateChange(ctx context.Context, source connectivity.State) bool
	Connect()
	ResetConnectBackoff()
	Target() string
	CanonicalTarget() string
	Close() error
}

var (
	_ clientConn = (*grpc.ClientConn)(nil)
	_ clientConn = (*shared.Pool)(nil)
)

// besidePlain is a pool and a plain channel to the same server in memory. The channel goes
// idle when the pool does.
func besidePlain(t *testing.T, channels bool, idle time.Duration) (p *shared.Pool, plain *grpc.ClientConn, server *grpcpooltest.Server) {
	t.Helper()
	server = grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
	f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
	if err != nil {
		t.Fatal(err)
	}
	plain, err = grpc.NewClient(server.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(server.Dial), grpc.WithIdleTimeout(idle))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { plain.Close() })
	if channels {
		return newPool(t, f, idle), plain, server
	}
	return newPool(t, connectedOnly{f}, idle), plain, server
}

// connectedOnly is a factory that is no ChannelFactory.
type connectedOnly struct{ f *grpcpool.Factory }

func (f connectedOnly) NewConnection(ctx context.Context) (*grpc.ClientConn, error) {
	return f.f.NewConnection(ctx)
}

func (f connectedOnly) ConnectionOk(ctx context.Context, conn *grpc.ClientConn) error {
	return f.f.ConnectionOk(ctx, conn)
}

func (f connectedOnly) Target() string { return f.f.Target() }

// reaches waits until cc is in a state, as programs do it.
func reaches(t *testing.T, cc clientConn, want ...connectivity.State) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for {
		state := cc.GetState()
		if slices.Contains(want, state) {
			return
		}
		if !cc.WaitForStateChange(ctx, state) {
			t.Errorf("%T stays %v, want %v", cc, state, want)
			return
		}
	}
}

func TestThePoolIsInTheStatesOfAPlainChannel(t *testing.T) {
	for name, channels := range map[string]bool{"over a ChannelFactory": true, "over a factory of connected channels": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { sameStates(t, channels) })
		})
	}
}

func sameStates(t *testing.T, channels bool) {
	const idle = 30 * time.Second
	p, plain, server := besidePlain(t, channels, idle)
	both := []clientConn{plain, p}
	are := func(when string, want connectivity.State) {
		t.Helper()
		synctest.Wait()
		for _, cc := range both {
			if got := cc.GetState(); got != want {
				t.Errorf("%s, %T is %v, want %v", when, cc, got, want)
			}
			if cc.Target() != plain.Target() {
				t.Errorf("%s, %T has the target %q, want %q", when, cc, cc.Target(), plain.Target())
			}
			if cc.CanonicalTarget() != plain.CanonicalTarget() && (channels || want == connectivity.Ready) {
				t.Errorf("%s, %T has the canonical target %q, want %q", when, cc, cc.CanonicalTarget(), plain.CanonicalTarget())
			}
		}
	}
	are("never connected", connectivity.Idle)
	for _, cc := range both {
		cc.Connect()
		reaches(t, cc, connectivity.Ready)
	}
	are("connected", connectivity.Ready)
	for _, cc := range both {
		cc.Connect() // once more changes nothing
		if err := emptyCall(cc)(t.Context()); err != nil {
			t.Error(err)
		}
	}
	are("after a call", connectivity.Ready)

	server.Stop()
	for _, cc := range both {
		reaches(t, cc, connectivity.Idle, connectivity.Connecting, connectivity.TransientFailure)
		cc.Connect()
		reaches(t, cc, connectivity.TransientFailure)
	}
	server.Start()
	for _, cc := range both {
		cc.ResetConnectBackoff()
		cc.Connect()
		reaches(t, cc, connectivity.Ready)
	}
	are("with the server back", connectivity.Ready)

	for _, cc := range both {
		reaches(t, cc, connectivity.Idle)
	}
	time.Sleep(2 * idle)
	are("idle", connectivity.Idle)
	for _, cc := range both {
		if err := emptyCall(cc)(t.Context()); err != nil {
			t.Error(err)
		}
	}
	are("after a call that woke it", connectivity.Ready)

	for _, cc := range both {
		if err := cc.Close(); err != nil {
			t.Error(err)
		}
	}
	are("closed", connectivity.Shutdown)
	for _, cc := range both {
		cc.Connect()
		cc.ResetConnectBackoff()
		reaches(t, cc, connectivity.Shutdown)
	}
	are("connected once closed", connectivity.Shutdown)
}

// A call by itself connects the pool, and its states are the channel's on the way.
func TestAProgramThatWatchesTheStateSeesTheSameChangesOfAPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, plain, _ := besidePlain(t, true, 30*time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		seen := make([][]connectivity.State, 2)
		var watchers sync.WaitGroup
		for i, cc := range []clientConn{plain, p} {
			watchers.Go(func() {
				for state := cc.GetState(); ; state = cc.GetState() {
					seen[i] = append(seen[i], state)
					if state == connectivity.Shutdown || !cc.WaitForStateChange(ctx, state) {
						return
					}
				}
			})
		}
		synctest.Wait()
		for range 2 {
			for _, cc := range []clientConn{plain, p} {
				if err := emptyCall(cc)(t.Context()); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(2 * time.Minute)
		}
		plain.Close()
		p.Close()
		synctest.Wait()
		cancel()
		watchers.Wait()
		// CONNECTING may be too short to be seen.
		for i, states := range seen {
			var lasting []connectivity.State
			for _, s := range states {
				if s != connectivity.Connecting && (len(lasting) == 0 || lasting[len(lasting)-1] != s) {
					lasting = append(lasting, s)
				}
			}
			want := []connectivity.State{connectivity.Idle, connectivity.Ready, connectivity.Idle, connectivity.Ready, connectivity.Idle, connectivity.Shutdown}
			if len(lasting) != len(want) {
				t.Errorf("%d: %v, want %v", i, lasting, want)
				continue
			}
			for n := range want {
				if lasting[n] != want[n] {
					t.Errorf("%d: %v, want %v", i, lasting, want)
				}
			}
		}
	})
}

func TestWaitForStateChangeEndsWithItsContext(t *testing.T) {
	for name, channels := range map[string]bool{"over a ChannelFactory": true, "over a factory of connected channels": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, plain, _ := besidePlain(t, channels, time.Hour)
				waits := func(when string, source connectivity.State) {
					for _, cc := range []clientConn{plain, p} {
						ctx, cancel := context.WithTimeout(t.Context(), time.Second)
						start := time.Now()
						if changed := cc.WaitForStateChange(ctx, source); changed || time.Since(start) != time.Second {
							t.Errorf("%s, %T: %v after %v", when, cc, changed, time.Since(start))
						}
						if cc.WaitForStateChange(ctx, source) {
							t.Errorf("%s, %T reports a change to a context that had ended", when, cc)
						}
						if !cc.WaitForStateChange(ctx, connectivity.Connecting) {
							t.Errorf("%s, %T reports no change, though the state is another", when, cc)
						}
						cancel()
					}
				}
				waits("never connected", connectivity.Idle)
				for _, cc := range []clientConn{plain, p} {
					cc.Connect()
					reaches(t, cc, connectivity.Ready)
				}
				waits("connected", connectivity.Ready)
				plain.Close()
				p.Close()
				waits("closed", connectivity.Shutdown)
			})
		})
	}
}

// Waiters see what happens to the pool's channel, whichever channel that is.
func TestEveryWaiterSeesTheChangeOfState(t *testing.T) {
	for name, test := range map[string]struct {
		begin  func(*shared.Pool)
		change func(*shared.Pool, *grpcpooltest.Server)
	}{
		"connected by a call": {func(*shared.Pool) {}, func(p *shared.Pool, _ *grpcpooltest.Server) { _ = emptyCall(p)(context.Background()) }},
		"connected by Get":    {func(*shared.Pool) {}, func(p *shared.Pool, _ *grpcpooltest.Server) { go p.Get(context.Background()) }},
		"connected by itself": {func(*shared.Pool) {}, func(p *shared.Pool, _ *grpcpooltest.Server) { p.Connect() }},
		"closed when idle": {
			func(p *shared.Pool) { _ = emptyCall(p)(context.Background()) },
			func(*shared.Pool, *grpcpooltest.Server) { time.Sleep(2 * time.Minute) },
		},
		"left by the server": {
			func(p *shared.Pool) { _ = emptyCall(p)(context.Background()) },
			func(_ *shared.Pool, s *grpcpooltest.Server) { s.Stop() },
		},
		"closed": {
			func(p *shared.Pool) { _ = emptyCall(p)(context.Background()) },
			func(p *shared.Pool, _ *grpcpooltest.Server) { p.Close() },
		},
		"closed before it was used": {func(*shared.Pool) {}, func(p *shared.Pool, _ *grpcpooltest.Server) { p.Close() }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, server := inMemory(t, time.Minute, shared.WithDrainTimeout(0))
				test.begin(p)
				synctest.Wait()
				source := p.GetState()
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				var waiters sync.WaitGroup
				var saw atomic.Int32
				for range 200 {
					waiters.Go(func() {
						if p.WaitForStateChange(ctx, source) {
							saw.Add(1)
						}
					})
				}
				time.Sleep(time.Second)
				if n := saw.Load(); n != 0 {
					t.Errorf("%d waiters saw a change before there was one", n)
				}
				test.change(p, server)
				waiters.Wait()
				if saw.Load() != 200 {
					t.Errorf("%d of 200 waiters saw the change from %v to %v", saw.Load(), source, p.GetState())
				}
			})
		})
	}
}

// One channel in another's place is no change of state by itself.
func TestAWaiterStaysWhenAChannelReplacesAnotherInTheSameState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{}
		p := newPool(t, f, 0)
		l := get(t, p)
		defer l.Return()
		ctx, cancel := context.WithCancel(t.Context())
		var changed atomic.Int32 // 1: true, 2: false
		go func() {
			if p.WaitForStateChange(ctx, connectivity.Idle) { // the channels of f never connect
				changed.Store(1)
			} else {
				changed.Store(2)
			}
		}()
		f.script(nil, failTest)
		time.Sleep(20 * time.Second) // the lease has the channel tested
		if n := p.Stats().Replaced; n == 0 {
			t.Fatal("the channel was not replaced")
		}
		if changed.Load() != 0 {
			t.Errorf("the waiter has gone: %d", changed.Load())
		}
		cancel()
		synctest.Wait()
		if changed.Load() != 2 {
			t.Errorf("the waiter's context has ended: %d", changed.Load())
		}
	})
}

func TestConnectAndTheTargetsMakeOneChannelHoweverManyAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
		if err != nil {
			t.Fatal(err)
		}
		p := newPool(t, slowChannels{f}, 0)
		var all sync.WaitGroup
		for range 100 {
			all.Go(p.Connect)
			all.Go(func() { p.CanonicalTarget() })
			all.Go(func() { _ = emptyCall(p)(t.Context()) })
		}
		all.Wait()
		if s := p.Stats(); s.Dials != 1 || s.Channels != 1 || s.Leases != 0 || server.Accepted() != 1 {
			t.Errorf("%d connections; stats: %+v", server.Accepted(), s)
		}
	})
}

// slowChannels makes its channels slowly.
type slowChannels struct{ *grpcpool.Factory }

func (f slowChannels) NewChannel(ctx context.Context) (*grpc.ClientConn, grpcpool.Inspector, error) {
	time.Sleep(time.Second)
	return f.Factory.NewChannel(ctx)
}

func TestResetConnectBackoffEndsAPauseOfTheChannelAndOfThePool(t *testing.T) {
	for name, channels := range map[string]bool{"over a ChannelFactory": true, "over a factory of connected channels": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, plain, server := besidePlain(t, channels, 0)
				both := []clientConn{plain, p}
				for _, cc := range both {
					cc.Connect()
					reaches(t, cc, connectivity.Ready)
				}
				server.Stop()
				outage, stop := context.WithTimeout(t.Context(), 10*time.Minute)
				defer stop()
				for outage.Err() == nil { // the pauses grow while there are calls
					for _, cc := range both {
						if err := emptyCall(cc)(t.Context()); err == nil {
							t.Error("a call has succeeded")
						}
					}
					time.Sleep(10 * time.Second)
				}
				time.Sleep(5 * time.Minute)
				server.Start()
				synctest.Wait()
				for _, cc := range both {
					start := time.Now()
					cc.ResetConnectBackoff()
					reaches(t, cc, connectivity.Ready)
					if took := time.Since(start); took > 0 {
						t.Errorf("%T is back after %v", cc, took)
					}
				}
			})
		})
	}
}

// Beside it a plain channel, which Connect wakes too.
func TestConnectWakesAChannelThatIsIdle(t *testing.T) {
	for name, channels := range map[string]bool{"over a ChannelFactory": true, "over a factory of connected channels": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, plain, server := besidePlain(t, channels, 0) // no idle close
				for _, cc := range []clientConn{plain, p} {
					cc.Connect()
					reaches(t, cc, connectivity.Ready)
				}
				server.GracefulStop()
				server.Start()
				synctest.Wait()
				for _, cc := range []clientConn{plain, p} {
					cc.Connect()
					reaches(t, cc, connectivity.Ready)
				}
				if n := p.Stats().Leases; n != 0 {
					t.Errorf("%d leases out", n)
				}
			})
		})
	}
}

// The target of a program is short, and gRPC completes it.
func TestTheCanonicalTargetIsThatOfAPlainChannelInEveryState(t *testing.T) {
	for name, before := range map[string]func(*shared.Pool){
		"never used":                 func(*shared.Pool) {},
		"with a channel":             func(p *shared.Pool) { p.CanonicalTarget() },
		"closed before it was used":  func(p *shared.Pool) { p.Close() },
		"closed after it had a call": func(p *shared.Pool) { _ = emptyCall(p)(context.Background()); p.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			const target = "localhost:1"
			plain, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer plain.Close()
			f, err := grpcpool.NewFactory(target, insecure.NewCredentials())
			if err != nil {
				t.Fatal(err)
			}
			p := newPool(t, f, 0)
			before(p)
			if got, want := p.CanonicalTarget(), plain.CanonicalTarget(); got != want || want == target {
				t.Errorf("the canonical target is %q, want %q", got, want)
			}
			if got := p.Target(); got != target {
				t.Errorf("the target is %q, want %q", got, target)
			}
		})
	}
	p := newPool(t, &fakeFactory{}, 0) // neither its target nor a channel is known
	if got := p.Target() + p.CanonicalTarget(); got != "" {
		t.Errorf("the targets are %q before there is a channel", got)
	}
	borrow(t, p)
	if p.Target() != "passthrough:///nowhere" || p.CanonicalTarget() != "passthrough:///nowhere" {
		t.Errorf("the targets are %q and %q", p.Target(), p.CanonicalTarget())
	}
}
