package scale_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/scale"
)

// run has callers call without a pause, for a warm-up and then for the time that
// is measured, and reports calls a second and latencies.
func run(b *testing.B, s *server, p peer, callers int, warmUp, measured time.Duration) {
	b.Helper()
	client := s.dial(b, p)
	defer client.close()
	begin := time.Now().Add(warmUp)
	end := begin.Add(measured)
	histograms := make([]*hdrhistogram.Histogram, callers)
	var wg sync.WaitGroup
	for i := range histograms {
		h := hdrhistogram.New(1, time.Minute.Microseconds(), 3)
		histograms[i] = h
		wg.Go(func() {
			for now := time.Now(); now.Before(end); {
				if _, err := client.EmptyCall(context.Background(), &testpb.Empty{}); err != nil {
					b.Error(err)
					return
				}
				done := time.Now()
				if done.After(begin) && done.Before(end) {
					_ = h.RecordValue(done.Sub(now).Microseconds())
				}
				now = done
			}
		})
	}
	wg.Wait()
	total := histograms[0]
	for _, h := range histograms[1:] {
		total.Merge(h)
	}
	b.ReportMetric(0, "ns/op") // the length of the run is no result
	b.ReportMetric(float64(total.TotalCount())/measured.Seconds(), "calls/s")
	for name, q := range map[string]float64{"p50-ms": 50, "p99-ms": 99, "p99.9-ms": 99.9} {
		b.ReportMetric(float64(total.ValueAtQuantile(q))/1000, name)
	}
	b.ReportMetric(float64(s.accepted.Load()), "connections")
}

// BenchmarkSaturation is 1,000 callers on a server that allows 100 streams on a
// connection and takes 100 ms a call.
func BenchmarkSaturation(b *testing.B) {
	s := start(b, always(100*time.Millisecond), false, grpc.MaxConcurrentStreams(100))
	for _, p := range inTurn(peer{"plain", plain}, peer{"ten", several(10)}, peer{"scale", scaled()}) {
		b.Run("callers=1000/peer="+p.name, func(b *testing.B) { run(b, s, p, 1000, 2*time.Second, 3*time.Second) })
	}
}

// BenchmarkOverload is more callers than the streams of four connections.
func BenchmarkOverload(b *testing.B) {
	s := start(b, mixed, false, grpc.MaxConcurrentStreams(100))
	for _, callers := range []struct {
		name string
		n    int
	}{{"1000", 1000}, {"6000", 6000}} {
		for _, p := range inTurn(peer{"four", several(4)}, peer{"scale", scaled(scale.WithMaxConnections(4))}) {
			b.Run("callers="+callers.name+"/peer="+p.name, func(b *testing.B) { run(b, s, p, callers.n, 2*time.Second, 4*time.Second) })
		}
	}
}

// BenchmarkBurst is 1,000 calls at once, of 200 ms each, on a channel without a
// connection; a dial takes 50 ms. "oneatatime" may dial one connection at a time,
// as gRFC A105 grows; "remembered" had connections before, and so knows the limit.
func BenchmarkBurst(b *testing.B) {
	s := start(b, always(200*time.Millisecond), false, grpc.MaxConcurrentStreams(100))
	for _, p := range inTurn(
		peer{"ten", several(10)},
		peer{"oneatatime", scaled(slowDialer(new(sync.Mutex)))},
		peer{"scale", scaled(slowDialer(nil))},
		peer{"remembered", remembered},
	) {
		b.Run("calls=1000/peer="+p.name, func(b *testing.B) {
			var opts []grpc.DialOption
			if p.name == "ten" {
				opts = append(opts, slowDialer(nil))
			}
			took := time.Duration(0)
			for range b.N {
				client := s.dial(b, p, opts...)
				took += burst(b, client, 1000)
				client.close()
			}
			b.ReportMetric(float64(took.Microseconds())/1000/float64(b.N), "burst-ms")
			b.ReportMetric(float64(s.accepted.Load()), "connections")
		})
	}
}

// burst makes so many calls at once and returns how long it takes until the last
// has been answered.
func burst(b *testing.B, client stub, calls int) time.Duration {
	b.Helper()
	var wg sync.WaitGroup
	begin := time.Now()
	for range calls {
		wg.Go(func() {
			if _, err := client.EmptyCall(context.Background(), &testpb.Empty{}); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	return time.Since(begin)
}

// remembered is a channel that has been used and has gone idle since.
func remembered(b *testing.B, target string, opts ...grpc.DialOption) stub {
	b.Helper()
	cc, err := scale.NewClient(target, append(opts, slowDialer(nil), grpc.WithIdleTimeout(300*time.Millisecond))...)
	if err != nil {
		b.Fatal(err)
	}
	client := stub{testpb.NewTestServiceClient(cc), func() { cc.Close() }}
	if _, err := client.EmptyCall(b.Context(), &testpb.Empty{}); err != nil {
		b.Fatal(err)
	}
	for state := cc.GetState(); state.String() != "IDLE"; state = cc.GetState() {
		cc.WaitForStateChange(b.Context(), state)
	}
	return client
}

// slowDialer takes 50 ms for a connection, one after the other if there is a lock.
func slowDialer(serial *sync.Mutex) grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		if serial != nil {
			serial.Lock()
			defer serial.Unlock()
		}
		time.Sleep(50 * time.Millisecond)
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	})
}
