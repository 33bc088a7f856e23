package scale_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
)

// twoServers are a channel with pick_first on two servers, a plain one beside it, and the
// link to the first server, on which both channels are.
type twoServers struct {
	*channel

	plain  testpb.TestServiceClient
	first  *grpcpooltest.Link
	second *server
}

func newTwoServers(t *testing.T, limit uint32, addrs ...string) *twoServers {
	t.Helper()
	networks := map[string]*inMemory{"a": newInMemory(), "b": newInMemory()}
	startServer(t, serverConfig{listener: networks["a"], limit: limit})
	w := &twoServers{first: grpcpooltest.NewLink(networks["a"].dial), second: startServer(t, serverConfig{listener: networks["b"], limit: limit})}
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		if addr == "a" {
			return w.first.Dial(ctx, addr)
		}
		return networks["b"].dial(ctx, addr)
	}
	opts := []grpc.DialOption{
		grpc.WithContextDialer(dial), grpc.WithIdleTimeout(0), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithResolvers(&static{"both", addrs, ""}),
	}
	plain, err := grpc.NewClient("both:///x", opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = plain.Close() })
	w.plain, w.channel = testpb.NewTestServiceClient(plain), newChannel(t, "both:///x", opts...)
	mustHammer(t, w.plain, 1, 1)
	mustHammer(t, w.stub, 1, 1)
	return w
}

// ejected is how many connections were.
func (w *twoServers) ejected() (n uint64) {
	for _, s := range w.observer.Snapshot().Subchannels {
		n += s.Ejected
	}
	return n
}

// timedCall makes a call that has ten seconds, and says how long it took.
func timedCall(stub testpb.TestServiceClient) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	begun := time.Now()
	_, err := stub.EmptyCall(ctx, &testpb.Empty{})
	return time.Since(begun), err
}

// Row 28, with another server. The plain channel's call is lost.
func TestTheFirstCallsAfterAQuietHourGoToTheOtherServerIfTheFirstIsDead(t *testing.T) {
	for name, fault := range map[string]struct {
		kill func(*grpcpooltest.Link)
		most time.Duration // a patience, the time for a dial or a handshake, and some to look
	}{
		"the way to it is dead": {(*grpcpooltest.Link).Blackhole, 2 * time.Second},
		"it is stopped":         {(*grpcpooltest.Link).Hang, 3750 * time.Millisecond},
	} {
		for _, quiet := range []time.Duration{6 * time.Second, 13 * time.Second, time.Hour} {
			for _, later := range []time.Duration{5001 * time.Millisecond, 5900 * time.Millisecond, 6700 * time.Millisecond, time.Minute} {
				t.Run(fmt.Sprintf("%s, a call %v later, after %v", name, later, quiet), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newTwoServers(t, 0, "a", "b")
						elapse(quiet)
						fault.kill(w.first)
						elapse(later)
						var calls sync.WaitGroup
						calls.Go(func() {
							if _, err := timedCall(w.plain); err == nil {
								t.Error("the plain channel's call went well: this test shows nothing")
							}
						})
						for range 50 {
							calls.Go(func() {
								if took, err := timedCall(w.stub); err != nil || took > fault.most {
									t.Errorf("a call ended after %v with %v", took, err)
								}
							})
						}
						calls.Wait()
					})
				})
			}
		}
	}
}

// Row 26 for a connection that nobody uses: whatever a plain channel completes, ours does,
// and while nobody calls nothing is dialled in its place but one successor.
func TestAnUnusedConnectionToAServerThatStopsForAWhileCostsNoCall(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for name, tc := range map[string]struct {
		addrs []string
		stop  func(*grpcpooltest.Link)
	}{
		"stopped":                    {[]string{"a"}, (*grpcpooltest.Link).Hang},
		"nothing passes":             {[]string{"a"}, (*grpcpooltest.Link).Blackhole},
		"stopped, another server":    {[]string{"a", "b"}, (*grpcpooltest.Link).Hang},
		"nothing passes, and it too": {[]string{"a", "b"}, (*grpcpooltest.Link).Blackhole},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range 30 {
				quiet := 6*time.Second + time.Duration(random.Int64N(int64(time.Minute)))
				call := time.Duration(random.Int64N(int64(longestStop)))
				called := i%3 > 0
				synctest.Test(t, func(t *testing.T) {
					w := newTwoServers(t, 0, tc.addrs...)
					elapse(quiet)
					tc.stop(w.first)
					elapse(call)
					var calls sync.WaitGroup
					if called {
						for _, stub := range []testpb.TestServiceClient{w.plain, w.stub} {
							calls.Go(func() {
								if took, err := timedCall(stub); err != nil {
									t.Errorf("a call %v after the begin of the stop ended after %v with %v (plain: %v)", call, took, err, stub == w.plain)
								}
							})
						}
					}
					elapse(longestStop - call)
					w.first.Heal()
					calls.Wait()
					elapse(5 * time.Second)
					if n := w.ejected(); n > 0 && (!called || len(tc.addrs) == 1) {
						t.Errorf("%d connections were ejected", n)
					}
				})
			}
		})
	}
}

// One connection has streams, so no other address is tried while the server is stopped, and
// the streams live.
func TestAConnectionWithStreamsIsNotGivenUpForACallThatCouldGoElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwoServers(t, 10, "a", "b")
		held := streams(t, w.stub, 9) // and one stream is kept free
		mustHammer(t, w.stub, 9, 2)   // a second connection
		elapse(13 * time.Second)
		if n := w.connections(); n != 2 {
			t.Fatalf("%d connections", n)
		}
		w.first.Hang()
		var calls sync.WaitGroup
		for range 5 {
			calls.Go(func() {
				if took, err := timedCall(w.stub); err != nil {
					t.Errorf("a call ended after %v with %v", took, err)
				}
			})
		}
		elapse(longestStop)
		w.first.Heal()
		calls.Wait()
		if n := countLost(held); n > 0 || w.ejected() > 0 {
			t.Errorf("%d streams were lost, and %d connections ejected", n, w.ejected())
		}
	})
}

// With streams to lose a dead connection lasts until the verdict. Then the calls that waited
// go to the other server.
func TestCallsGoElsewhereAfterTheVerdictOnAConnectionWithStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwoServers(t, 0, "a", "b")
		held := streams(t, w.stub, 1)
		elapse(13 * time.Second)
		w.first.Blackhole()
		elapse(6 * time.Second)
		if took, err := timedCall(w.stub); err != nil || took > 4*time.Second {
			t.Errorf("the call ended after %v with %v", took, err)
		}
		if countLost(held) != 1 {
			t.Error("the stream lives")
		}
	})
}

// The younger of two quiet connections is well: it gets the call as soon as the older one
// is silent.
func TestACallThatWaitsForASilentConnectionGetsAQuietOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaths(t, serverConfig{limit: 10}, scale.WithShrinkAfter(0))
		for _, s := range streams(t, p.stub, 10) {
			end(s)
		}
		elapse(time.Hour)
		p.link(0).Blackhole()
		elapse(5001 * time.Millisecond)
		dials := p.dials()
		if took, err := timedCall(p.stub); err != nil || took > 1100*time.Millisecond {
			t.Errorf("the call ended after %v with %v", took, err)
		}
		if n := p.dials() - dials; n > 1 {
			t.Errorf("%d dials", n)
		}
	})
}
