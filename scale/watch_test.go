package scale_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// linked is a server in memory and a channel to it over a link with faults.
type linked struct {
	*channel

	link   *grpcpooltest.Link
	server *server
}

func newLinked(t *testing.T, cfg serverConfig, opts ...grpc.DialOption) *linked {
	t.Helper()
	network := newInMemory()
	cfg.listener = network
	s := startServer(t, cfg)
	l := newOnLink(t, network, opts...)
	l.server = s
	return l
}

// newOnLink is a channel to the server of network, over a link.
func newOnLink(t *testing.T, network *inMemory, opts ...grpc.DialOption) *linked {
	t.Helper()
	link := grpcpooltest.NewLink(network.dial)
	opts = append([]grpc.DialOption{grpc.WithContextDialer(link.Dial), grpc.WithIdleTimeout(0)}, opts...)
	return &linked{newChannel(t, "passthrough:///memory", opts...), link, nil}
}

// call makes one RPC that has a minute.
func (l *linked) call() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := l.stub.EmptyCall(ctx, &testpb.Empty{})
	return err
}

func (l *linked) subchannel() scale.Subchannel { return l.observer.Snapshot().Subchannels[0] }

// calls keeps n callers calling until stop, at a pace.
func (l *linked) calls(n int, pace time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, _ = l.stub.EmptyCall(ctx, &testpb.Empty{})
				time.Sleep(pace) // the callers' pace, in virtual time
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// stream opens a stream that the server answers on when sent to.
func (l *linked) stream(t *testing.T) testpb.TestService_FullDuplexCallClient {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	s, err := l.stub.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// endsWithin checks that the stream's next message is an error that tells of a
// probe, not later than the given time from now.
func endsWithin(t *testing.T, s testpb.TestService_FullDuplexCallClient, most time.Duration) {
	t.Helper()
	start := time.Now()
	_, err := s.Recv()
	if took := time.Since(start); took > most {
		t.Errorf("the stream ended after %v, want %v at most", took, most)
	}
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no answer to a probe within 3s") {
		t.Errorf("the stream ended with %v, want Unavailable and why", err)
	}
}

// The rows are those of the fault matrix. Nothing can take the connection's place, so the
// calls on it are told late.
func TestADeadConnectionIsEjected(t *testing.T) {
	for _, tc := range []struct {
		name     string
		up, down bool
		traffic  bool
		most     time.Duration
	}{
		{"row 1: blackhole under one stream", true, true, false, 3500 * time.Millisecond},
		{"row 1: blackhole under load", true, true, true, 3500 * time.Millisecond},
		{"row 3: nothing comes from the server", false, true, false, 3500 * time.Millisecond},
		{"row 3: nothing comes from the server, under load", false, true, true, 3500 * time.Millisecond},
		// On this link a server whose kernel still takes what is sent (row 5), a proxy
		// that forwards nothing (row 6) and a link that is down (row 8) look alike.
		{"rows 5, 6 and 8: what is sent is taken, and nothing comes", true, true, true, 3500 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, after := range []time.Duration{0, 1, 250 * time.Millisecond, 777 * time.Millisecond, 10 * time.Second} {
				synctest.Test(t, func(t *testing.T) {
					l := newLinked(t, serverConfig{})
					s := l.stream(t)
					if tc.traffic {
						defer l.calls(3, 5*time.Millisecond)()
					}
					elapse(after)
					l.link.Drop(tc.up, tc.down)
					endsWithin(t, s, tc.most)
				})
			}
		})
	}
}

func TestAResetIsNoticedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // row 7
		l := newLinked(t, serverConfig{})
		s := l.stream(t)
		elapse(3 * time.Second)
		l.link.Reset()
		start := time.Now()
		if _, err := s.Recv(); status.Code(err) != codes.Unavailable || time.Since(start) > 0 {
			t.Errorf("the stream ended after %v with %v, want Unavailable at once", time.Since(start), err)
		}
		if err := l.call(); err != nil || time.Since(start) > 0 {
			t.Errorf("the next call ended after %v with %v, want an answer at once", time.Since(start), err)
		}
	})
}

// Later it depends on how long it has been idle; see quiet_test.go.
func TestAnIdleConnectionThatDiedIsEjected(t *testing.T) {
	for after, opts := range map[time.Duration][]grpc.DialOption{
		0:                      nil,
		1:                      nil,
		333 * time.Millisecond: nil,
		3 * time.Second:        nil,
		10 * time.Second:       {scale.WithIdleProbeInterval(0)},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newLinked(t, serverConfig{}, opts...)
			if err := l.call(); err != nil {
				t.Fatal(err)
			}
			elapse(after)
			l.link.Drop(true, true)
			elapse(2 * time.Second) // row 2: no call is put on it any more
			if n := l.link.Dials(); n != 2 {
				t.Errorf("%d dials two seconds after it was cut off, want that of the successor too", n)
			}
			begun := l.subchannel().Connections[0].InFlight
			ctx, cancel := context.WithCancel(t.Context())
			go func() { _, _ = l.stub.EmptyCall(ctx, &testpb.Empty{}) }()
			synctest.Wait()
			if sub := l.subchannel(); sub.Waiters != 1 || sub.Connections[0].InFlight != begun {
				t.Errorf("a call two seconds after it was cut off: %+v", sub)
			}
			cancel()
			elapse(2 * time.Second)
			if sub := l.subchannel(); sub.Ejected != 1 || len(sub.Connections) != 0 {
				t.Errorf("four seconds after it was cut off: %+v", sub)
			}
		})
	}
}

func TestBytesFromTheServerProveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // row 4
		l := newLinked(t, serverConfig{})
		s := l.stream(t)
		for range 10_000 { // the server answers late, so bytes come in while none go out
			if err := s.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		l.link.Delay(3 * time.Second)
		elapse(time.Second)
		l.link.Drop(true, false)
		start := time.Now()
		for {
			if _, err := s.Recv(); err != nil {
				break
			}
		}
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("the stream ended after %v, want 4 s at most", took)
		}
	})
}

func TestACallGoesThroughWithinASecondOfTheEndOfALongOutage(t *testing.T) {
	for _, outage := range []time.Duration{3 * time.Second, time.Minute, 10*time.Minute + 123*time.Millisecond} {
		synctest.Test(t, func(t *testing.T) { // row 9
			l := newLinked(t, serverConfig{})
			stop := l.calls(3, 100*time.Millisecond)
			elapse(time.Second)
			l.link.Drop(true, true)
			elapse(outage)
			dials := l.link.Dials()
			elapse(10 * time.Second)
			if n := l.link.Dials() - dials; n < 10 || n > 14 {
				t.Errorf("%d dials in 10 s of an outage of %v with demand, want about one a second: %+v", n, outage, l.observer.Snapshot())
			}
			stop()
			stop = l.calls(1, 10*time.Millisecond)
			elapse(2 * time.Second)
			before := l.server.calls.Load()
			l.link.Heal()
			elapse(time.Second)
			if l.server.calls.Load() == before {
				t.Error("no call went through in the second after the link healed")
			}
			stop()
		})
	}
}

func TestWithoutDemandAnOutageIsNotDialledInto(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinked(t, serverConfig{})
		if err := l.call(); err != nil {
			t.Fatal(err)
		}
		l.link.Drop(true, true)
		elapse(10 * time.Minute)
		if n := l.link.Dials(); n > 30 {
			t.Errorf("%d dials in ten minutes without a call", n)
		}
	})
}

func TestCallersFailFastWhileEveryConnectionIsBad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // row 16
		l := newLinked(t, serverConfig{}, scale.WithMaxStreams(2))
		s := l.stream(t)
		for range 5 {
			l.stream(t)
		}
		if n := l.connections(); n != 3 {
			t.Fatalf("%d connections, want 3", n)
		}
		l.link.Drop(true, true)
		_, _ = s.Recv()
		elapse(5 * time.Second)
		stop := l.calls(20, 5*time.Millisecond)
		defer stop()
		elapse(5 * time.Second)
		start := time.Now()
		err := l.call()
		if took := time.Since(start); took > 50*time.Millisecond || status.Code(err) != codes.Unavailable {
			t.Errorf("a call ended after %v with %v, want Unavailable at once", took, err)
		}
		for range 20 {
			elapse(97 * time.Millisecond)
			if n := l.subchannel().Dialling; n > 1 {
				t.Errorf("%d dials at once, want one that looks whether the network is back", n)
			}
		}
	})
}

func TestCallsThatWaitForOneOfTwoDialsAreToldOfTheSecondsFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // row 16
		l := newLinked(t, serverConfig{}, scale.WithMaxStreams(2))
		s := l.stream(t)
		for range 5 {
			l.stream(t)
		}
		l.link.Drop(true, true)
		var calls sync.WaitGroup
		start := time.Now()
		for range 2 { // each needs a connection that is not there yet
			elapse(500 * time.Millisecond)
			for range 2 {
				calls.Go(func() { _ = l.call() })
			}
		}
		_, _ = s.Recv()
		for range 3 { // wait for the first of the dials
			calls.Go(func() { _ = l.call() })
		}
		calls.Wait() // nobody else comes
		if took := time.Since(start); took > 4200*time.Millisecond {
			t.Errorf("the last call failed after %v, want 3.35 s and the 0.75 s of a dial at most: %+v", took, l.subchannel())
		}
	})
}

func TestASlowOrLossyNetworkIsNotADeadOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // row 15
		l := newLinked(t, serverConfig{})
		l.link.Delay(200 * time.Millisecond)
		stop := l.calls(2, 50*time.Millisecond)
		elapse(5 * time.Minute)
		stop()
		elapse(5 * time.Minute)
		if sub := l.subchannel(); sub.Ejected != 0 || sub.Opened != 1 {
			t.Errorf("after ten minutes: %+v", sub)
		}
	})
}

func TestTrafficThatProvesAConnectionAliveSparesItProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinked(t, serverConfig{}, scale.WithIdleProbeInterval(0))
		stop := l.calls(1, 5*time.Millisecond)
		elapse(time.Minute)
		if sub := l.subchannel(); sub.Probes != 0 {
			t.Errorf("%d probes of a connection on which calls are answered", sub.Probes)
		}
		stop()
		elapse(time.Minute)
		if n := l.subchannel().Probes; n < 60 || n > 90 {
			t.Errorf("%d probes in a minute of an idle connection, want one every 0.7 to 0.9 s", n)
		}
		s := l.stream(t)
		before := l.subchannel().Probes
		elapse(time.Minute)
		if n := l.subchannel().Probes - before; n < 150 || n > 180 {
			t.Errorf("%d probes in a minute of a silent stream, want one every 0.35 s", n)
		}
		_ = s.CloseSend()
	})
}

func TestAFullConnectionIsProbedOnTheStreamThatIsKeptFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // row 18
		l := newLinked(t, serverConfig{limit: 20}, scale.WithMaxConnections(1))
		for range 19 {
			l.stream(t)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := l.stub.EmptyCall(ctx, &testpb.Empty{}); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("a twentieth call got %v, want to wait in vain: the last stream is for probes", err)
		}
		if sub := l.subchannel(); sub.Probes < 100 || sub.ProbesFailed != 0 {
			t.Errorf("after a minute: %+v", sub)
		}
		if _, err := l.stub.EmptyCall(scale.ContextWithPriority(context.Background()), &testpb.Empty{}); err != nil {
			t.Errorf("a health check: %v", err)
		}
	})
}

func TestASmallLimitLeavesNoStreamForProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinked(t, serverConfig{limit: 4}, scale.WithMaxConnections(1))
		for range 4 {
			l.stream(t)
		}
		elapse(time.Minute)
		if sub := l.subchannel(); sub.Ejected != 0 || sub.Probes != 0 {
			t.Errorf("after a minute with every stream taken: %+v", sub)
		}
	})
}

func TestProbesCanBeTurnedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinked(t, serverConfig{}, scale.WithProbeInterval(0))
		l.stream(t)
		l.link.Drop(true, true)
		elapse(time.Minute)
		if sub := l.subchannel(); sub.Ejected != 0 || sub.Probes != 0 {
			t.Errorf("after a minute: %+v", sub)
		}
	})
}

func TestAConnectionWhoseProbeHangsIsSparedWhenCallsAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := scale.WithProbe(func(ctx context.Context, _ grpc.ClientConnInterface) error {
			<-ctx.Done()
			return ctx.Err()
		})
		l := newLinked(t, serverConfig{delay: 400 * time.Millisecond}, hangs)
		defer l.calls(5, 5*time.Millisecond)()
		elapse(time.Minute)
		if sub := l.subchannel(); sub.Ejected != 0 {
			t.Errorf("after a minute: %+v", sub)
		}
	})
}

func TestConnectionsToASlowServerAreNotEjectedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, _ := strictInMemory(t, h2test.WithDelay(3*time.Second)) // health checks too
		c := network.channel(t, grpc.WithIdleTimeout(0))
		c.Connect()
		elapse(10 * time.Minute)
		if sub := c.observer.Snapshot().Subchannels[0]; sub.Ejected > 0 || sub.Replaced > 20 || len(sub.Connections) != 1 {
			t.Errorf("after ten minutes: %+v", sub)
		}
	})
}

// Dials of an address that is known to be near are given up soon. If it is not near
// any more, that must not go on for ever.
func TestAnAddressThatHasBecomeFarIsReachedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinked(t, serverConfig{})
		defer l.calls(2, 20*time.Millisecond)()
		elapse(time.Second)
		l.link.Delay(450 * time.Millisecond) // a dial takes twice that
		l.link.Reset()
		elapse(20 * time.Second)
		if sub := l.subchannel(); len(sub.Connections) != 1 {
			t.Errorf("after 20 s: %+v", sub)
		}
		before := l.link.Dials()
		l.link.Reset()
		elapse(4 * time.Second)
		if sub := l.subchannel(); len(sub.Connections) != 1 || l.link.Dials() != before+1 {
			t.Errorf("lost and dialled again, %d times: %+v", l.link.Dials()-before, sub)
		}
	})
}
