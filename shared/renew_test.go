package shared_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/shared"
)

func TestAChannelIsTestedBeforeLendingOnlyWithoutAProofOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{}
		p := newPool(t, f, 0)
		borrow(t, p)
		time.Sleep(499 * time.Millisecond)
		borrow(t, p)
		f.wantOneDial(t, 0) // the dial is proof enough
		time.Sleep(2 * time.Millisecond)
		borrow(t, p)
		f.wantOneDial(t, 1)
		time.Sleep(499 * time.Millisecond)
		borrow(t, p)
		f.wantOneDial(t, 1)
		time.Sleep(time.Hour)
		borrow(t, p)
		f.wantOneDial(t, 2)
	})
}

func TestCallersShareATestBeforeLending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{}
		p := newPool(t, f, 0)
		borrow(t, p)
		time.Sleep(time.Minute)
		f.script(nil, func(context.Context, *grpc.ClientConn) error { time.Sleep(100 * time.Millisecond); return nil })
		start := time.Now()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { borrow(t, p) })
		}
		wg.Wait()
		f.wantOneDial(t, 1)
		if took := time.Since(start); took != 100*time.Millisecond {
			t.Errorf("the callers waited %v, want 100ms", took)
		}
	})
}

func TestWithLeasesOutTheTestRunsInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{}
		p := newPool(t, f, 0)
		l := get(t, p)
		f.script(nil, hangTest)
		time.Sleep(1100 * time.Millisecond) // the test is under way
		start := time.Now()
		borrow(t, p)
		if took := time.Since(start); took != 0 {
			t.Errorf("Get waited %v for a background test", took)
		}
		f.wantOneDial(t, 1)
		l.Return()
	})
}

func TestRPCsOnThePoolSpareTheBackgroundTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := inMemoryOver(t, unwatched(), 0)
		client := testpb.NewTestServiceClient(p)
		l := get(t, p)
		for range 100 {
			if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := p.Stats().Tests; n != 0 {
			t.Errorf("%d tests of a channel whose traffic proves it alive", n)
		}
		time.Sleep(10 * time.Second)
		if n := p.Stats().Tests; n < 9 || n > 11 {
			t.Errorf("%d tests in ten silent seconds with a lease out, want about 10", n)
		}
		l.Return()
		synctest.Wait()
	})
}

// The harm that the background test must not do: a channel that watches its connections
// is not asked what it knows. A Get that finds the last proof too old is.
func TestAChannelThatWatchesItsConnectionsIsNotTestedInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := inMemory(t, 0)
		l := get(t, p)
		for range 7 { // beyond 30 minutes gRPC closes connections that are not used
			time.Sleep(5 * time.Minute)
			borrow(t, p)
		}
		if n := p.Stats().Tests; n > 7 {
			t.Errorf("%d tests of a channel that watches its connections, want one for each Get at most", n)
		}
		l.Return()
	})
}

func TestAFailedChannelIsReplacedWithoutClosingItUnderItsLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{}
		p := newPool(t, f, 0)
		old := get(t, p)
		bad := old.Connection()
		f.script(nil, func(_ context.Context, conn *grpc.ClientConn) error {
			if conn == bad {
				return errScripted
			}
			return nil
		})
		time.Sleep(2 * time.Second) // the watchdog finds out
		l := get(t, p)
		if l.Connection() == bad || closed(bad) {
			t.Errorf("lent the failed channel: %v; closed it under a lease: %v", l.Connection() == bad, closed(bad))
		}
		if s := p.Stats(); s.Channels != 2 || s.Leases != 2 || s.Replaced != 1 {
			t.Errorf("stats %+v", s)
		}
		old.Return()
		synctest.Wait()
		if !closed(bad) || closed(l.Connection()) {
			t.Error("the last lease out must close the failed channel, and no other")
		}
		l.Return()
	})
}

func TestAFailedChannelIsKeptWhileNoOtherCanBeHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{}
		p := newPool(t, f, 0)
		l := get(t, p)
		f.script(refuseDial, failTest)
		time.Sleep(2 * time.Second)
		start := time.Now()
		_, err := p.Get(t.Context())
		if !errors.Is(err, errScripted) || time.Since(start) != 0 {
			t.Errorf("Get failed after %v with %v, want at once with the dial's error", time.Since(start), err)
		}
		before, _ := f.seen()
		time.Sleep(50 * time.Second)
		if after, _ := f.seen(); after-before < 50 || after-before > 120 {
			t.Errorf("%d dials in 50 s with a lease out, want one in 0.5 to 1 s", after-before)
		}
		time.Sleep(time.Minute)
		if closed(l.Connection()) {
			t.Fatal("the channel was closed under its lease")
		}
		l.Return()
		f.script(nil, nil)
		time.Sleep(5 * time.Second)
		borrow(t, p)
		synctest.Wait()
		if s := p.Stats(); s.State != shared.StateReady || s.Channels != 1 {
			t.Errorf("stats after the outage: %+v", s)
		}
	})
}

func TestAFailedChannelThatHealsIsUsedWhenNoOtherCanBeHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, server := inMemoryWith(t, nil, grpcpool.WithHealthCheck(""), grpcpool.WithDialOptions(unwatched()...))
		l := get(t, p)
		server.Health.SetServingStatus("", 2) // NOT_SERVING: the test fails, and so does the ping of a new channel
		time.Sleep(2 * time.Second)
		if _, err := p.Get(t.Context()); !errors.Is(err, grpcpool.ErrConnectionNotOK) {
			t.Errorf("Get: %v", err)
		}
		server.Health.SetServingStatus("", 1)
		time.Sleep(5 * time.Second) // each dial has cost the server a handshake: the pauses grow
		borrow(t, p)
		l.Return()
		synctest.Wait()
	})
}

// The pauses are those of internal/pause: short at first, and up to 0.9 s.
func TestAServerThatRefusesIsDialledSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{onDial: refuseDial}
		p := newPool(t, f, 0)
		begun := time.Now()
		for time.Since(begun) < 10*time.Minute {
			if _, err := p.Get(t.Context()); !errors.Is(err, errScripted) {
				t.Fatalf("Get: %v", err)
			}
			time.Sleep(time.Millisecond)
		}
		for i := 1; i < len(f.dials); i++ {
			gap, outage := f.dials[i].Sub(f.dials[i-1]), f.dials[i-1].Sub(begun)
			most := min(max(outage/2, 50*time.Millisecond), 900*time.Millisecond)
			if gap < most/2 || gap > most+2*time.Millisecond {
				t.Fatalf("after %v of outage a dial came %v after the one before, want %v to %v", outage, gap, most/2, most)
			}
		}
		f.script(nil, nil)
		healed := time.Now()
		for {
			if _, err := p.Get(t.Context()); err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(healed); took > time.Second+10*time.Millisecond {
			t.Errorf("the first good Get came %v after the server was back", took)
		}
	})
}

// A dial that fails for reasons that nobody tells may have cost the server something.
func TestAServerThatAcceptsAndFailsIsDialledLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{onDial: failDial}
		p := newPool(t, f, 0)
		for begun := time.Now(); time.Since(begun) < 10*time.Minute; time.Sleep(time.Millisecond) {
			_, _ = p.Get(t.Context())
		}
		for i := 1; i < len(f.dials); i++ {
			if gap := f.dials[i].Sub(f.dials[i-1]); gap < 750*time.Millisecond || gap > 10*time.Second+2*time.Millisecond {
				t.Fatalf("dial %d came %v after the one before, want 0.75 to 10 s", i, gap)
			}
		}
		if n := len(f.dials); n < 65 || n > 95 { // some 8 s apart
			t.Errorf("%d dials in ten minutes", n)
		}
	})
}

func TestWithoutDemandNothingIsDialled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{onDial: failDial}
		p := newPool(t, f, 0)
		_, _ = p.Get(t.Context())
		time.Sleep(time.Hour)
		f.wantOneDial(t, 0)
	})
}

func TestWaitingForReadyOutlastsAnOutage(t *testing.T) {
	for name, test := range map[string]struct {
		opts []shared.Option
		call []grpc.CallOption
	}{
		"of the pool": {[]shared.Option{shared.WithWaitForReady()}, nil},
		"of one call": {nil, []grpc.CallOption{grpc.WaitForReady(true)}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, server := inMemory(t, 0, test.opts...)
				server.Stop()
				var back time.Time
				time.AfterFunc(10*time.Minute, func() { back = time.Now(); server.Start() })
				if _, err := testpb.NewTestServiceClient(p).EmptyCall(t.Context(), &testpb.Empty{}, test.call...); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(back); took > 5*time.Second { // the longest pause after a minute
					t.Errorf("the call went through %v after the server was back", took)
				}
			})
		})
	}
}

// The lease is older than the outage, and its channel sits in grpc-go's backoff
// of up to two minutes: the pool's replacement is the proof that ends it.
func TestRPCsOnAnOldLeaseGoThroughWithinASecondOfTheServersReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, server := inMemory(t, 0)
		l := get(t, p)
		server.Stop()
		synctest.Wait() // the channel knows: a call that is on its way then has failed
		var back time.Time
		time.AfterFunc(10*time.Minute, func() { back = time.Now(); server.Start() })
		_, err := testpb.NewTestServiceClient(l.Connection()).EmptyCall(t.Context(), &testpb.Empty{}, grpc.WaitForReady(true))
		if took := time.Since(back); err != nil || took > time.Second {
			t.Errorf("the call ended %v after the server was back: %v", took, err)
		}
		l.Return()
		synctest.Wait()
	})
}

func TestAServerThatFailsAsSoonAsItHasAcceptedIsNotDialledInALoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{onTest: failTest} // dials go well, and half a second later the channel is bad
		p := newPool(t, f, 0)
		for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(10 * time.Millisecond) {
			if l, err := p.Get(t.Context()); err == nil {
				l.Return()
			}
		}
		if n, _ := f.seen(); n > 100 {
			t.Errorf("%d dials in a minute", n)
		}
	})
}

func TestACancelledCallIsCancelledForItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{onDial: func(context.Context) error { time.Sleep(time.Minute); return nil }}
		p := newPool(t, f, 0, shared.WithDrainTimeout(time.Hour)) // the dial takes no notice of its context
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("the user went away")
		time.AfterFunc(time.Second, func() { cancel(why) })
		_, err := testpb.NewTestServiceClient(p).EmptyCall(ctx, &testpb.Empty{})
		if status.Code(err) != codes.Canceled || !errors.Is(err, why) || !errors.Is(err, context.Canceled) {
			t.Errorf("the call ended with %v", err)
		}
	})
}

// Its answers take longer than the test timeout, but they come.
func TestASlowServerIsNotReplacedWhileItAnswers(t *testing.T) {
	for name, use := range map[string]func(*shared.Pool, grpcpool.PoolClientConn) grpc.ClientConnInterface{
		"RPCs on the pool":  func(p *shared.Pool, _ grpcpool.PoolClientConn) grpc.ClientConnInterface { return p },
		"RPCs on the lease": func(_ *shared.Pool, l grpcpool.PoolClientConn) grpc.ClientConnInterface { return l.Connection() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
				slow := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
					time.Sleep(1500 * time.Millisecond)
					return invoke(ctx, method, req, reply, cc, opts...)
				}
				f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(),
					grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial), grpc.WithUnaryInterceptor(slow)))
				if err != nil {
					t.Fatal(err)
				}
				p := newPool(t, f, 0)
				l := get(t, p)
				for range 50 {
					if _, err := testpb.NewTestServiceClient(use(p, l)).EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
						t.Fatal(err)
					}
				}
				if s := p.Stats(); s.Replaced != 0 {
					t.Errorf("replaced %d times: %+v", s.Replaced, s)
				}
				l.Return()
			})
		})
	}
}

func TestRPCsThatAreAnsweredOutweighATestThatIsTooSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(),
			grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
		if err != nil {
			t.Fatal(err)
		}
		p := newPool(t, hangingTests{f}, 0)
		l := get(t, p)
		for range 60 { // one in 900 ms: there is time for a test to begin, and none for it to end, without one
			time.Sleep(900 * time.Millisecond)
			if _, err := testpb.NewTestServiceClient(p).EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
				t.Fatal(err)
			}
		}
		if s := p.Stats(); s.Replaced != 0 || s.TestsFailed == 0 {
			t.Errorf("stats %+v, want tests that failed and nothing replaced", s)
		}
		l.Return()
	})
}

// hangingTests is a factory whose tests of a channel get no answer.
type hangingTests struct{ grpcpool.ConnectionFactory }

func (hangingTests) ConnectionOk(ctx context.Context, conn *grpc.ClientConn) error {
	return hangTest(ctx, conn)
}

func TestDialsAndTestsDoNotCarryTheCallersMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		check := func(ctx context.Context) {
			if md, _ := metadata.FromOutgoingContext(ctx); len(md) != 0 {
				t.Errorf("the caller's metadata would be sent: %v", md)
			}
		}
		f := &fakeFactory{
			onDial: func(ctx context.Context) error { check(ctx); return nil },
			onTest: func(ctx context.Context, _ *grpc.ClientConn) error { check(ctx); return nil },
		}
		p := newPool(t, f, 0)
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "one user's")
		for range 2 {
			l, err := p.Get(ctx)
			if err != nil {
				t.Fatal(err)
			}
			l.Return()
			time.Sleep(time.Minute)
		}
		f.wantOneDial(t, 1)
	})
}

// A lease is out and RPCs fail: the pool does not wait for the next background
// test to find out why.
func TestAnRPCThatEndsWithUnavailablePromptsATest(t *testing.T) {
	for name, call := range map[string]func(context.Context, *shared.Pool) error{
		"unary": func(ctx context.Context, p *shared.Pool) error {
			_, err := testpb.NewTestServiceClient(p).EmptyCall(ctx, &testpb.Empty{})
			return err
		},
		"stream": func(ctx context.Context, p *shared.Pool) error {
			s, err := testpb.NewTestServiceClient(p).FullDuplexCall(ctx)
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
	} {
		for watched, dial := range map[string][]grpc.DialOption{"watched": nil, "unwatched": unwatched()} {
			t.Run(name+", "+watched, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p, server := inMemoryOver(t, dial, time.Minute)
					l := get(t, p)
					time.Sleep(950 * time.Millisecond) // old enough for a dial, and not yet tested
					server.Stop()
					if err := call(t.Context(), p); status.Code(err) != codes.Unavailable {
						t.Fatalf("the RPC ended with %v", err)
					}
					synctest.Wait()
					failed := uint64(len(dial)) // a channel that watches its connections dials by itself
					// Its test is made again if the first was on the connection that ended.
					most := 1 + 2*(1-failed)
					if s := p.Stats(); s.TestsFailed < 1 || s.TestsFailed > most || s.DialsFailed != failed {
						t.Errorf("%d tests and %d dials of the factory failed at once, want 1 to %d and %d", s.TestsFailed, s.DialsFailed, most, failed)
					}
					l.Return()
				})
			})
		}
	}
}

func TestAServerThatAnswersUnavailableIsNotTestedEachTime(t *testing.T) {
	for name, test := range map[string]struct {
		dial        []grpc.DialOption
		least, most uint64
	}{"watched": {nil, 0, 20}, "unwatched": {unwatched(), 50, 105}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, _ := inMemoryWith(t, []grpcpooltest.Option{grpcpooltest.WithEmptyCall(func(context.Context) error {
					return status.Error(codes.Unavailable, "not now")
				})}, grpcpool.WithDialOptions(test.dial...))
				l := get(t, p)
				for start := time.Now(); time.Since(start) < 10*time.Second; time.Sleep(time.Millisecond) {
					_, _ = testpb.NewTestServiceClient(p).EmptyCall(t.Context(), &testpb.Empty{})
				}
				if s := p.Stats(); s.Tests < test.least || s.Tests > test.most || s.Dials != 1 {
					t.Errorf("%d tests in ten seconds and %d dials, want %d to %d tests and nothing dialled", s.Tests, s.Dials, test.least, test.most)
				}
				l.Return()
			})
		})
	}
}
