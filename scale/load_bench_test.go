package scale_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/scale"
)

// The benchmarks here put a server under load and report what callers see. An
// iteration is one call, so ns/op is the time between two answers. Give them at
// least a second of calls: -benchtime=20000x or more.

// caller makes one call.
type caller func(ctx context.Context) error

// channels are what a load runs on: ours, a plain channel, or several plain
// channels used as a pool.
type channels struct {
	name string
	make func(tb testing.TB, target string, opts ...grpc.DialOption) caller
}

func one(d dialer, more ...grpc.DialOption) func(testing.TB, string, ...grpc.DialOption) caller {
	return func(tb testing.TB, target string, opts ...grpc.DialOption) caller {
		tb.Helper()
		return dialStub(tb, d, target, append(opts, more...)...).call
	}
}

// leastLoaded is a fixed pool of n plain channels; a call goes to the one that has
// the fewest.
func leastLoaded(n int) func(testing.TB, string, ...grpc.DialOption) caller {
	return func(tb testing.TB, target string, opts ...grpc.DialOption) caller {
		tb.Helper()
		pool := make([]*stub, n)
		for i := range pool {
			pool[i] = dialStub(tb, plainAndScale[0], target, opts...)
		}
		return func(ctx context.Context) error {
			least := slices.MinFunc(pool, func(a, b *stub) int { return int(a.load.Load() - b.load.Load()) })
			return least.call(ctx)
		}
	}
}

// stub counts the calls that it has under way.
type stub struct {
	testpb.TestServiceClient

	load atomic.Int64
}

func dialStub(tb testing.TB, d dialer, target string, opts ...grpc.DialOption) *stub {
	tb.Helper()
	cc, err := d.dial("passthrough:///"+target, append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, opts...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = cc.Close() })
	return &stub{TestServiceClient: testpb.NewTestServiceClient(cc)}
}

func (s *stub) call(ctx context.Context) error {
	s.load.Add(1)
	defer s.load.Add(-1)
	_, err := s.EmptyCall(ctx, &testpb.Empty{}, grpc.WaitForReady(true))
	return err
}

// load has callers make n calls and reports the rate and the tail.
func load(b *testing.B, call caller, callers, n int) {
	b.Helper()
	took := make([]time.Duration, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range callers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				begin := time.Now()
				if err := call(context.Background()); err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(begin)
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	slices.Sort(took)
	b.ReportMetric(float64(n)/elapsed.Seconds(), "rpc/s")
	b.ReportMetric(quantile(took, 0.99), "p99-ms")
	b.ReportMetric(quantile(took, 0.999), "p99.9-ms")
}

func quantile(sorted []time.Duration, q float64) float64 {
	return float64(sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]) / float64(time.Millisecond)
}

// BenchmarkSaturation: 1,000 callers, a limit of 100, calls of 100 ms.
func BenchmarkSaturation(b *testing.B) {
	for _, c := range []channels{
		{"plain", one(plainAndScale[0])},
		{"ten", leastLoaded(10)},
		{"scale", one(plainAndScale[1])},
	} {
		b.Run("channel="+c.name, func(b *testing.B) {
			s := startServer(b, serverConfig{limit: 100, delay: 100 * time.Millisecond})
			call := c.make(b, s.addr)
			share(b, 1000, 2000, func() error { return call(context.Background()) }) // all connections are up
			b.ResetTimer()
			load(b, call, 1000, b.N)
			b.ReportMetric(float64(s.accepted.Load()), "connections")
		})
	}
}

// BenchmarkOverload: more callers than the 400 streams of 4 connections; one call
// in ten is slow.
func BenchmarkOverload(b *testing.B) {
	for _, callers := range []int{1000, 6000} {
		for _, c := range []channels{
			{"four", leastLoaded(4)},
			{"scale", one(plainAndScale[1], scale.MaxConnections(4))},
		} {
			b.Run(fmt.Sprintf("callers=%d/channel=%s", callers, c.name), func(b *testing.B) {
				s := startServer(b, serverConfig{limit: 100})
				s.delay = func() time.Duration {
					if rand.IntN(10) == 0 {
						return 200 * time.Millisecond
					}
					return 20 * time.Millisecond
				}
				call := c.make(b, s.addr)
				share(b, 1000, 2000, func() error { return call(context.Background()) })
				b.ResetTimer()
				load(b, call, callers, b.N)
				b.ReportMetric(float64(s.accepted.Load()), "connections")
			})
		}
	}
}

// BenchmarkColdBurst: 1,000 calls of 200 ms on a channel that is not connected,
// where a dial takes 50 ms and the limit is 100. An iteration is one burst.
//
// "one-at-a-time" grows as gRFC A105 has it: its dials wait for each other.
// "remembered" is a channel that was
// connected before and went idle.
func BenchmarkColdBurst(b *testing.B) {
	slow := func(ctx context.Context, addr string) (net.Conn, error) {
		time.Sleep(50 * time.Millisecond) // the dial
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}
	var turn sync.Mutex
	oneAtATime := func(ctx context.Context, addr string) (net.Conn, error) {
		turn.Lock()
		defer turn.Unlock()
		return slow(ctx, addr)
	}
	for _, c := range []channels{
		{"ten", leastLoaded(10)},
		{"one-at-a-time", one(plainAndScale[1], grpc.WithContextDialer(oneAtATime))},
		{"scale", one(plainAndScale[1])},
		{"remembered", remembered},
	} {
		b.Run("channel="+c.name, func(b *testing.B) {
			s := startServer(b, serverConfig{limit: 100, delay: 200 * time.Millisecond})
			for b.Loop() {
				b.StopTimer()
				call := c.make(b, s.addr, grpc.WithContextDialer(slow))
				b.StartTimer()
				share(b, 1000, 1000, func() error { return call(context.Background()) })
			}
		})
	}
}

// remembered makes a channel of ours that has seen the server and is idle.
func remembered(tb testing.TB, target string, opts ...grpc.DialOption) caller {
	tb.Helper()
	observer := new(scale.Observer)
	s := dialStub(tb, plainAndScale[1], target, append(opts, scale.Observe(observer), grpc.WithIdleTimeout(20*time.Millisecond))...)
	if err := s.call(context.Background()); err != nil {
		tb.Fatal(err)
	}
	eventually(tb, "the channel is idle", func() bool { return len(observer.Snapshot().Subchannels) == 0 })
	return s.call
}
