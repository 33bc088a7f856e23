package scale_test

import (
	"context"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
)

const (
	// longestStop is for how long a server may stop without a live stream being lost.
	longestStop = 2500 * time.Millisecond

	// noNewCall is when a connection in use that is dead since then takes no new call.
	noNewCall = 1350 * time.Millisecond
)

// streams opens n streams.
func streams(t *testing.T, stub testpb.TestServiceClient, n int) []testpb.TestService_FullDuplexCallClient {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	all := make([]testpb.TestService_FullDuplexCallClient, 0, n)
	for range n {
		s, err := stub.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

// countLost is how many of the streams do not answer.
func countLost(all []testpb.TestService_FullDuplexCallClient) (lost int) {
	for _, s := range all {
		if s.Send(&testpb.StreamingOutputCallRequest{}) != nil {
			lost++
		} else if _, err := s.Recv(); err != nil {
			lost++
		}
	}
	return lost
}

// traffic keeps calls going, each begun pace after the one before, until stop, which
// returns how many were made and how many failed.
func traffic(stub testpb.TestServiceClient, pace time.Duration) (stop func() (made, failed int64)) {
	ctx, cancel := context.WithCancel(context.Background())
	var made, bad atomic.Int64
	var calls sync.WaitGroup
	calls.Go(func() {
		ticks := time.NewTicker(pace)
		defer ticks.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticks.C:
			}
			made.Add(1)
			calls.Go(func() {
				if _, err := stub.EmptyCall(context.Background(), &testpb.Empty{}); err != nil {
					bad.Add(1)
				}
			})
		}
	})
	return func() (int64, int64) {
		cancel()
		calls.Wait()
		return made.Load(), bad.Load()
	}
}

// Row 26. The plain channel beside it shows what the stop by itself costs: nothing.
func TestAServerThatStopsForAWhileLosesNothing(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for name, tc := range map[string]struct {
		limit  uint32
		stop   func(*grpcpooltest.Link)
		client []grpc.DialOption
	}{
		"its kernel goes on":      {0, (*grpcpooltest.Link).Hang, nil},
		"nothing passes":          {0, (*grpcpooltest.Link).Blackhole, nil},
		"several connections":     {30, (*grpcpooltest.Link).Hang, nil},
		"one connection is full":  {100, (*grpcpooltest.Link).Hang, []grpc.DialOption{scale.WithMaxConnections(1)}},
		"one that may have a few": {9, (*grpcpooltest.Link).Blackhole, []grpc.DialOption{scale.WithMaxConnections(20)}},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range 12 {
				after, stopped := time.Duration(random.Int64N(int64(2*time.Second))), time.Duration(random.Int64N(int64(longestStop)))
				if i == 0 {
					stopped = longestStop
				}
				synctest.Test(t, func(t *testing.T) {
					l := newLinked(t, serverConfig{limit: tc.limit}, tc.client...)
					plain, err := grpc.NewClient("passthrough:///memory", grpc.WithContextDialer(l.link.Dial), grpc.WithTransportCredentials(insecure.NewCredentials()))
					if err != nil {
						t.Fatal(err)
					}
					defer plain.Close()
					n := 98
					if tc.limit > 0 && tc.limit < 99 {
						n = int(tc.limit) * 3
					}
					ours := streams(t, l.stub, n)
					theirs := streams(t, testpb.NewTestServiceClient(plain), min(n, 9))
					stop := traffic(l.stub, 20*time.Millisecond)
					elapse(after)
					tc.stop(l.link)
					elapse(min(stopped, noNewCall))
					dials := l.link.Dials()
					elapse(stopped - min(stopped, noNewCall))
					if n := l.link.Dials() - dials; n > 1 {
						t.Errorf("%d dials after the first %v of a stop of %v, want that of one successor", n, noNewCall, stopped)
					}
					l.link.Heal()
					elapse(time.Second)
					if made, failed := stop(); failed > 0 {
						t.Errorf("%d of %d calls failed around a stop of %v, %v after the begin", failed, made, stopped, after)
					}
					if ours, theirs := countLost(ours), countLost(theirs); ours+theirs > 0 {
						t.Errorf("a stop of %v, %v after the begin, lost %d streams, and %d of the plain channel", stopped, after, ours, theirs)
					}
					if now := l.subchannel(); now.Ejected+now.Lost > 0 {
						t.Errorf("after a stop of %v: %+v", stopped, now)
					}
				})
			}
		})
	}
}

// paths is a server in memory that each dial reaches over a link of its own.
type paths struct {
	*linked

	mu    sync.Mutex
	links []*grpcpooltest.Link // guarded by mu
}

// link is that of the nth dial, from 0.
func (p *paths) link(n int) *grpcpooltest.Link {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.links[n]
}

func (p *paths) dials() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

func newPaths(t *testing.T, cfg serverConfig, opts ...grpc.DialOption) *paths {
	t.Helper()
	p := new(paths)
	network := newInMemory()
	cfg.listener = network
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		link := grpcpooltest.NewLink(network.dial)
		p.mu.Lock()
		p.links = append(p.links, link)
		p.mu.Unlock()
		return link.Dial(ctx, addr)
	}
	s := startServer(t, cfg)
	opts = append([]grpc.DialOption{grpc.WithContextDialer(dial), grpc.WithIdleTimeout(0)}, opts...)
	p.linked = &linked{newChannel(t, "passthrough:///memory", opts...), nil, s}
	return p
}

// Row 27: the path of one connection is dead, and the server is well.
func TestCallsOnADeadConnectionAreToldWhenItsSuccessorHasAnswered(t *testing.T) {
	for _, after := range []time.Duration{0, 1, 333 * time.Millisecond, 10 * time.Second} {
		for _, busy := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				p := newPaths(t, serverConfig{})
				s := p.stream(t)
				stop := func() (int64, int64) { return 0, 0 }
				if busy {
					stop = traffic(p.stub, 20*time.Millisecond)
				}
				elapse(after)
				p.link(0).Drop(true, true)
				dropped := time.Now()
				elapse(noNewCall)
				begun := time.Now()
				if err := p.call(); err != nil || time.Since(begun) > 300*time.Millisecond {
					t.Errorf("a call begun 1.35 s after the fault ended after %v with %v", time.Since(begun), err)
				}
				_, err := s.Recv()
				if took := time.Since(dropped); took > 1650*time.Millisecond || status.Code(err) != codes.Unavailable ||
					!containsAll(err.Error(), "ejected: no answer to a probe within 1", "while another connection was answered") {
					t.Errorf("the stream ended after %v with %v", took, err)
				}
				elapse(time.Second)
				stop()
				if sub := p.subchannel(); sub.Ejected != 1 || sub.Opened != 2 || p.dials() != 2 {
					t.Errorf("after %d dials: %+v", p.dials(), sub)
				}
			})
		}
	}
}

// Row 27, with another connection that is there already.
func TestAConnectionIsNotWaitedForWhileAnotherOneAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaths(t, serverConfig{limit: 20}, scale.WithMaxConnections(2))
		held := streams(t, p.stub, 19) // and one stream is kept free
		stop := traffic(p.stub, 5*time.Millisecond)
		elapse(5 * time.Second)
		p.link(0).Drop(true, true)
		dropped := time.Now()
		_, err := held[0].Recv()
		if took := time.Since(dropped); took > 1650*time.Millisecond || status.Code(err) != codes.Unavailable {
			t.Errorf("the stream ended after %v with %v", took, err)
		}
		elapse(time.Second)
		if made, failed := stop(); failed > 0 {
			t.Errorf("%d of %d calls failed, which were all on the other connection", failed, made)
		}
	})
}

// A connection that does not answer takes no call, however long that lasts, and calls
// that wait for it or its successor keep their deadlines.
func TestCallsWaitForASilentConnectionOrItsSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinked(t, serverConfig{limit: 10})
		held := streams(t, l.stub, 2)
		elapse(5 * time.Second)
		l.link.Hang()
		dropped := time.Now()
		elapse(noNewCall)
		ended := make(chan error, 100)
		call := func(timeout time.Duration, opts ...grpc.CallOption) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			go func() {
				defer cancel()
				_, err := l.stub.EmptyCall(ctx, &testpb.Empty{}, opts...)
				ended <- err
			}()
		}
		call(500 * time.Millisecond)
		if err := <-ended; status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "the connection does not answer") ||
			time.Since(dropped) != 1850*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(dropped), err)
		}
		for range 50 { // five connections' worth
			call(time.Minute)
		}
		elapse(time.Second)
		if n := l.link.Dials(); n != 2 {
			t.Errorf("%d dials, want that of the successor", n)
		}
		for range 50 { // when the connection is given up
			err := <-ended
			if took := time.Since(dropped); status.Code(err) != codes.Unavailable || took > 3500*time.Millisecond || !strings.Contains(err.Error(), "no answer to a probe within 3s") {
				t.Fatalf("a call failed after %v with %v", took, err)
			}
		}
		for _, s := range held {
			if _, err := s.Recv(); status.Code(err) != codes.Unavailable || time.Since(dropped) > 3500*time.Millisecond {
				t.Errorf("a stream ended after %v with %v", time.Since(dropped), err)
			}
		}
		call(time.Minute, grpc.WaitForReady(true))
		elapse(10 * time.Second)
		l.link.Heal()
		if err := <-ended; err != nil {
			t.Errorf("a call that waits for ready failed: %v", err)
		}
	})
}

func TestACallThatWaitsForReadyOutlivesTheEndOfASilentConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinked(t, serverConfig{})
		if err := l.call(); err != nil {
			t.Fatal(err)
		}
		l.link.Hang()
		elapse(2 * time.Second)
		ended := make(chan error, 1)
		go func() {
			_, err := l.stub.EmptyCall(t.Context(), &testpb.Empty{}, grpc.WaitForReady(true))
			ended <- err
		}()
		elapse(20 * time.Second)
		if sub := l.subchannel(); sub.Ejected == 0 {
			t.Errorf("nothing was ejected: %+v", sub)
		}
		l.link.Heal()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// Calls that another address can serve do not wait for a silent connection.
func TestCallsGoElsewhereWhileABackendIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		networks := map[string]*inMemory{"a": newInMemory(), "b": newInMemory()}
		for _, network := range networks {
			startServer(t, serverConfig{listener: network})
		}
		stopped := grpcpooltest.NewLink(networks["a"].dial)
		dial := func(ctx context.Context, addr string) (net.Conn, error) {
			if addr == "a" {
				return stopped.Dial(ctx, addr)
			}
			return networks["b"].dial(ctx, addr)
		}
		c := newChannel(t, "two:///x", grpc.WithContextDialer(dial), grpc.WithIdleTimeout(0),
			grpc.WithResolvers(&static{"two", []string{"a", "b"}, ""}),
			grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
		held := streams(t, c.stub, 10)
		mustHammer(t, c.stub, 2, 10)
		elapse(time.Second)
		stopped.Hang()
		elapse(1950 * time.Millisecond) // an idle one is found out in that time
		for range 100 {
			begun := time.Now()
			if _, err := c.stub.EmptyCall(t.Context(), &testpb.Empty{}); err != nil || time.Since(begun) > 0 {
				t.Fatalf("a call ended after %v with %v", time.Since(begun), err)
			}
		}
		elapse(500 * time.Millisecond)
		stopped.Heal()
		elapse(time.Second)
		if lost := countLost(held); lost > 0 {
			t.Errorf("%d streams were lost", lost)
		}
	})
}
