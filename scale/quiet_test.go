package scale_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// arrivals notes when RPCs reach a server: probes, by their header, and all others.
type arrivals struct {
	mu            sync.Mutex // guards what follows
	probes, calls []time.Time
}

func (a *arrivals) option() grpc.ServerOption {
	return grpc.InTapHandle(func(ctx context.Context, info *tap.Info) (context.Context, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if v := info.Header.Get("grpcpool-probe"); len(v) == 1 && v[0] == "1" {
			a.probes = append(a.probes, time.Now())
		} else {
			a.calls = append(a.calls, time.Now())
		}
		return ctx, nil
	})
}

func (a *arrivals) counts() (probes, calls int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.probes), len(a.calls)
}

// newWatched is newLinked with a server that notes arrivals.
func newWatched(t *testing.T, cfg serverConfig, opts ...grpc.DialOption) (*linked, *arrivals) {
	t.Helper()
	seen := new(arrivals)
	cfg.options = append(cfg.options, seen.option())
	return newLinked(t, cfg, opts...), seen
}

func TestProbesOfAnUnusedChannelBecomeRare(t *testing.T) {
	for _, tc := range []struct {
		name        string
		opts        []grpc.DialOption
		least, most int // in an hour
	}{
		{"by default every 30 s at last", nil, 120, 140},
		{"up to a minute", []grpc.DialOption{scale.WithIdleProbeInterval(time.Minute)}, 60, 77},
		{"never seldomer", []grpc.DialOption{scale.WithIdleProbeInterval(0)}, 3600, 5200},
		{"never seldomer than the probe interval", []grpc.DialOption{scale.WithProbeInterval(time.Minute)}, 60, 90},
		{"without probes", []grpc.DialOption{scale.WithProbeInterval(0)}, 0, 0},
		{"unsupervised", []grpc.DialOption{scale.WithUnsupervised()}, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, seen := newWatched(t, serverConfig{}, tc.opts...)
				if err := l.call(); err != nil {
					t.Fatal(err)
				}
				elapse(time.Hour)
				if probes, calls := seen.counts(); probes < tc.least || probes > tc.most || calls != 1 {
					t.Errorf("%d probes and %d calls in an hour, want %d to %d probes and one call", probes, calls, tc.least, tc.most)
				}
			})
		})
	}
}

func TestAStreamThatIsMerelyOpenIsProbedEveryFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := newWatched(t, serverConfig{})
		s := l.stream(t)
		elapse(time.Hour)
		echoes(t, s)
		probes, calls := seen.counts()
		if probes < 720 || probes > 900 || calls != 1 {
			t.Errorf("%d probes and %d calls in an hour", probes, calls)
		}
		for i := 1; i < probes; i++ {
			if pause := seen.probes[i].Sub(seen.probes[i-1]); pause > 5*time.Second {
				t.Fatalf("%v between two probes, want 5 s at most", pause)
			}
		}
	})
}

func TestACallEndsTheQuietOfAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := newWatched(t, serverConfig{})
		if err := l.call(); err != nil {
			t.Fatal(err)
		}
		elapse(time.Hour)
		if err := l.call(); err != nil {
			t.Fatal(err)
		}
		before, _ := seen.counts()
		elapse(10 * time.Second)
		if after, _ := seen.counts(); after-before < 3 {
			t.Errorf("%d probes in the ten seconds after a call, want one after 0.7 s and then fewer", after-before)
		}
	})
}

// onDying is a network whose first connections lead through a link that can be cut, while
// later ones do not.
type onDying struct {
	network *inMemory
	link    *grpcpooltest.Link
	cut     atomic.Bool
}

func newOnDying() *onDying {
	n := newInMemory()
	return &onDying{network: n, link: grpcpooltest.NewLink(n.dial)}
}

func (d *onDying) dial(ctx context.Context, addr string) (net.Conn, error) {
	if d.cut.Load() {
		return d.network.dial(ctx, addr)
	}
	return d.link.Dial(ctx, addr)
}

func (d *onDying) kill() {
	d.cut.Store(true)
	d.link.Drop(true, true)
}

func TestTheFirstCallAfterAQuietHourIsNotSentOnADeadConnection(t *testing.T) {
	for _, calls := range []int{1, 100} {
		synctest.Test(t, func(t *testing.T) {
			d := newOnDying()
			s := startServer(t, serverConfig{listener: d.network})
			opts := []grpc.DialOption{grpc.WithContextDialer(d.dial), grpc.WithIdleTimeout(0), grpc.WithTransportCredentials(insecure.NewCredentials())}
			plain, err := grpc.NewClient("passthrough:///memory", opts...)
			if err != nil {
				t.Fatal(err)
			}
			defer plain.Close()
			unsupervised := newChannel(t, "passthrough:///memory", slices.Concat(opts, []grpc.DialOption{scale.WithUnsupervised()})...)
			c := newChannel(t, "passthrough:///memory", opts...)
			others := map[string]testpb.TestServiceClient{"a plain": testpb.NewTestServiceClient(plain), "an unsupervised": unsupervised.stub}
			for _, stub := range others {
				mustHammer(t, stub, 1, 1)
			}
			mustHammer(t, c.stub, 1, 1)
			elapse(time.Hour)
			c.afterAProbe()
			d.kill()
			elapse(6 * time.Second)
			before, begun := s.calls.Load(), time.Now()
			var wg sync.WaitGroup
			for range calls {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
					defer cancel()
					if _, err := c.stub.EmptyCall(ctx, &testpb.Empty{}); err != nil {
						t.Errorf("a call ended after %v with %v", time.Since(begun), err)
					}
				})
			}
			wg.Wait()
			if took := time.Since(begun); took > 3500*time.Millisecond || s.calls.Load() != before+int64(calls) {
				t.Errorf("%d calls were made after %v", s.calls.Load()-before, took)
			}
			for name, stub := range others {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				if _, err := stub.EmptyCall(ctx, &testpb.Empty{}); status.Code(err) != codes.DeadlineExceeded {
					t.Errorf("on %s channel the same call ended with %v: this test shows nothing", name, err)
				}
			}
		})
	}
}

// As before the watch left quiet connections alone: one in use that dies gets no call that
// begins later than the busy share of the probe interval and the probe timeout after that.
func TestADeadConnectionInUseTakesNoNewCallAfterAProbeTimeoutAndAThird(t *testing.T) {
	const most = 1350 * time.Millisecond
	for _, pace := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			d := newOnDying()
			startServer(t, serverConfig{listener: d.network})
			c := newChannel(t, "passthrough:///memory", grpc.WithContextDialer(d.dial), grpc.WithIdleTimeout(0))
			mustHammer(t, c.stub, 1, 1)
			var wg sync.WaitGroup
			var late atomic.Int64
			begun := time.Now()
			var died time.Time
			for time.Since(begun) < 8*time.Second {
				if time.Since(begun) > 3*time.Second && died.IsZero() {
					died = time.Now()
					d.kill()
				}
				call, dead := time.Now(), died
				wg.Go(func() {
					if _, err := c.stub.EmptyCall(t.Context(), &testpb.Empty{}); !dead.IsZero() && call.After(dead.Add(most)) {
						late.Add(1)
						if err != nil { // it was sent there, where nothing is answered
							t.Errorf("at a pace of %v, a call that began %v after the end of the connection ended after %v with %v", pace, call.Sub(dead), time.Since(call), err)
						}
					}
				})
				elapse(pace)
			}
			wg.Wait()
			if late.Load() < 30 {
				t.Errorf("%d calls were late enough", late.Load())
			}
		})
	}
}

// The handlers take no part: a health service that hangs, or probes that are refused, do not
// hold the call up.
func TestTheFirstCallAfterAQuietHourTakesOneRoundTripMore(t *testing.T) {
	const delay = 50 * time.Millisecond
	hangs := func(s *grpc.Server) { healthpb.RegisterHealthServer(s, hungHealth{}) }
	for name, register := range map[string]func(*grpc.Server){"no health service": nil, "a health service that hangs": hangs} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, seen := newWatched(t, serverConfig{register: register})
				l.link.Delay(delay)
				took := func() time.Duration {
					begun := time.Now()
					if err := l.call(); err != nil {
						t.Error(err)
					}
					return time.Since(begun)
				}
				took() // and a dial
				if d := took(); d != 2*delay {
					t.Errorf("a call takes %v, want %v", d, 2*delay)
				}
				elapse(time.Hour)
				if name == "no health service" {
					l.afterAProbe()
				}
				elapse(6 * time.Second)
				before, _ := seen.counts()
				if d := took(); d != 4*delay {
					t.Errorf("the first call after an hour took %v, want %v", d, 4*delay)
				}
				if after, _ := seen.counts(); after > before+1 {
					t.Errorf("%d probes for one call", after-before)
				}
				if d := took(); d != 2*delay {
					t.Errorf("the next call took %v, want %v", d, 2*delay)
				}
			})
		})
	}
}

// hungHealth answers nothing.
type hungHealth struct {
	healthpb.UnimplementedHealthServer
}

func (hungHealth) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A server has to acknowledge SETTINGS. One that does not, and answers RPCs, loses nothing.
func TestACallAfterAPauseDoesNotEndAConnectionWhoseServerAcknowledgesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, _ := strictInMemory(t, h2test.WithFault(h2test.NeverAcknowledges))
		c := network.channel(t, grpc.WithIdleTimeout(0))
		mustHammer(t, c.stub, 1, 1)
		elapse(time.Hour)
		c.afterAProbe()
		elapse(6 * time.Second)
		begun := time.Now()
		if _, err := c.stub.EmptyCall(t.Context(), &testpb.Empty{}); err != nil || time.Since(begun) > time.Second {
			t.Errorf("the call ended after %v with %v", time.Since(begun), err)
		}
		if sub := c.observer.Snapshot().Subchannels[0]; sub.Ejected != 0 || sub.Opened != 1 {
			t.Errorf("%+v", sub)
		}
	})
}

// The call comes while a probe has no answer.
func TestACallDoesNotWaitForAProbeThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := newWatched(t, serverConfig{register: func(s *grpc.Server) { healthpb.RegisterHealthServer(s, hungHealth{}) }})
		if err := l.call(); err != nil {
			t.Fatal(err)
		}
		elapse(time.Hour)
		for before, after := 0, -1; after != before+1; {
			before, _ = seen.counts()
			elapse(time.Millisecond)
			after, _ = seen.counts()
		}
		elapse(100 * time.Millisecond)
		begun := time.Now()
		if err := l.call(); err != nil || time.Since(begun) > 0 {
			t.Errorf("the call ended after %v with %v", time.Since(begun), err)
		}
	})
}

func TestAThousandCallsAfterAQuietHourWaitForOneAnswer(t *testing.T) {
	const delay = 50 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		l, seen := newWatched(t, serverConfig{}, scale.WithStreamsPerUnlimitedConnection(0))
		l.link.Delay(delay)
		if err := l.call(); err != nil {
			t.Fatal(err)
		}
		elapse(time.Hour)
		l.afterAProbe()
		elapse(6 * time.Second)
		before, _ := seen.counts()
		begun := time.Now()
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				if err := l.call(); err != nil || time.Since(begun) != 4*delay {
					t.Errorf("a call ended after %v with %v", time.Since(begun), err)
				}
			})
		}
		wg.Wait()
		if after, calls := seen.counts(); after != before || calls != 1001 {
			t.Errorf("the server saw %d probes and %d calls", after-before, calls)
		}
		if sub := l.subchannel(); sub.Opened != 1 || l.link.Dials() != 1 || sub.Waited != 1000 {
			t.Errorf("%d dials: %+v", l.link.Dials(), sub)
		}
	})
}

func TestAConnectionThatIsBeingProvedIsNoReasonToGrow(t *testing.T) {
	const delay = 50 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		l, _ := newWatched(t, serverConfig{limit: 20})
		l.link.Delay(delay)
		if err := l.call(); err != nil {
			t.Fatal(err)
		}
		elapse(time.Hour)
		l.afterAProbe()
		elapse(6 * time.Second)
		done := make(chan []error)
		go func() { done <- hammer(context.Background(), l.stub, 40, 1) }()
		elapse(delay) // the question is on its way
		if n := l.link.Dials(); n != 1 {
			t.Errorf("%d dials before it is known how the connection is", n)
		}
		if err := <-done; len(err) > 0 {
			t.Error(err)
		}
		if n := l.link.Dials(); n < 2 {
			t.Errorf("%d dials for 40 calls at a limit of 20", n)
		}
	})
}

func TestACallThatWaitsForAQuietConnectionKeepsItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := newWatched(t, serverConfig{})
		l.link.Delay(50 * time.Millisecond)
		if err := l.call(); err != nil {
			t.Fatal(err)
		}
		elapse(time.Hour)
		l.afterAProbe()
		elapse(6 * time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		begun := time.Now()
		_, err := l.stub.EmptyCall(ctx, &testpb.Empty{})
		if status.Code(err) != codes.DeadlineExceeded || time.Since(begun) != 20*time.Millisecond || !strings.Contains(err.Error(), "has not shown yet that it is alive") {
			t.Errorf("the call ended after %v with %v", time.Since(begun), err)
		}
		if err := l.call(); err != nil {
			t.Error(err)
		}
	})
}

// The pool's own tests have priority. They prove a connection and do not use it.
func TestCallsWithPriorityLeaveAConnectionQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := newWatched(t, serverConfig{})
		if err := l.call(); err != nil {
			t.Fatal(err)
		}
		elapse(time.Hour)
		before, _ := seen.counts()
		for range 30 {
			elapse(7 * time.Second)
			begun := time.Now()
			if _, err := l.stub.EmptyCall(scale.ContextWithPriority(context.Background()), &testpb.Empty{}); err != nil || time.Since(begun) > 0 {
				t.Errorf("after %v: %v", time.Since(begun), err)
			}
			if proof := l.observer.LastProof(); !proof.Equal(begun) {
				t.Errorf("the last proof is of %v ago", begun.Sub(proof))
			}
		}
		if after, _ := seen.counts(); after > before+1 {
			t.Errorf("%d probes although other calls prove it alive", after-before)
		}
		before, _ = seen.counts()
		elapse(10 * time.Minute)
		if after, _ := seen.counts(); after-before > 22 {
			t.Errorf("%d probes in ten minutes, want one every 30 s", after-before)
		}
		if sub := l.subchannel(); sub.Waited != 0 {
			t.Errorf("%d calls have waited", sub.Waited)
		}
	})
}

func TestLastProofIsThatOfTheLastProbeWhileNobodyCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := newWatched(t, serverConfig{})
		if err := l.call(); err != nil {
			t.Fatal(err)
		}
		elapse(time.Hour + 11*time.Second)
		if proof, probe := l.observer.LastProof(), seen.probes[len(seen.probes)-1]; !proof.Equal(probe) {
			t.Errorf("the last proof is of %v, the last probe of %v", proof, probe)
		}
	})
}

func TestProbesOfWithProbeCarryTheHeaderToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, seen := newWatched(t, serverConfig{}, scale.WithProbe(func(_ context.Context, cc grpc.ClientConnInterface) error {
			own := metadata.AppendToOutgoingContext(context.Background(), "tenant", "x")
			_, err := healthpb.NewHealthClient(cc).Check(own, &healthpb.HealthCheckRequest{})
			return err
		}))
		l.Connect()
		elapse(time.Minute)
		if probes, calls := seen.counts(); probes < 3 || calls != 0 {
			t.Errorf("%d probes and %d other RPCs in a minute", probes, calls)
		}
	})
}
