package poolz_test

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/poolz"
	"github.com/davidwartell/go-grpcpool/shared"
)

const (
	benchCallers = 1000
	benchLeases  = 10_000
)

// loaded is a pool with 10,000 leases out, under leak detection, to a server on
// loopback that allows 100 streams a connection and takes so long for a call.
func loaded(b *testing.B, takes time.Duration) *shared.Pool {
	b.Helper()
	server := grpcpooltest.NewServer(b,
		grpcpooltest.WithServerOptions(grpc.MaxConcurrentStreams(100)),
		grpcpooltest.WithEmptyCall(func(context.Context) error { time.Sleep(takes); return nil }),
		grpcpooltest.WithoutCounts())
	factory, err := grpcpool.NewFactory(server.Addr(), insecure.NewCredentials())
	if err != nil {
		b.Fatal(err)
	}
	p := shared.New(factory, 0, shared.WithName("orders"), shared.WithLeakDetection(time.Hour))
	b.Cleanup(func() { p.Close() })
	leases := make([]grpcpool.PoolClientConn, 0, benchLeases)
	for range benchLeases {
		l, err := p.Get(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		leases = append(leases, l)
	}
	b.Cleanup(func() {
		for _, l := range leases {
			l.Return()
		}
	})
	return p
}

// startCallers has 1,000 callers call the pool until stop is called. Each has had
// an answer when it returns.
func startCallers(b *testing.B, p *shared.Pool) (stop func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	client := testpb.NewTestServiceClient(p)
	var callers, begun sync.WaitGroup
	begun.Add(benchCallers)
	for range benchCallers {
		callers.Go(func() {
			for first := true; ctx.Err() == nil; first = false {
				if _, err := client.EmptyCall(ctx, &testpb.Empty{}); err != nil && ctx.Err() == nil {
					b.Error(err)
				}
				if first {
					begun.Done()
				}
			}
		})
	}
	begun.Wait()
	return func() {
		cancel()
		callers.Wait()
	}
}

// BenchmarkPage is what a look at the page takes, 10,000 leases out and 1,000
// callers calling, a tenth of a second each time. Each look is a new one: those of
// a tenth of a second share one else.
//
//	go test ./poolz -run '^$' -bench Page -benchtime 200x -count 10 | benchstat -
func BenchmarkPage(b *testing.B) {
	for _, busy := range []bool{false, true} {
		name := "callers=0"
		if busy {
			name = "callers=1000"
		}
		p := loaded(b, 100*time.Millisecond)
		stop := func() {}
		if busy {
			stop = startCallers(b, p)
		}
		for _, format := range []string{"html", "json"} {
			b.Run(name+"/format="+format, func(b *testing.B) {
				b.ReportAllocs()
				var took []time.Duration
				for b.Loop() {
					start := time.Now()
					if w := ask(handler(p), "?format="+format); w.Code != http.StatusOK {
						b.Fatal(w.Code, w.Body)
					}
					took = append(took, time.Since(start))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
			})
		}
		stop()
	}
}

// BenchmarkCalls is what 1,000 callers get done while somebody looks at the page,
// ten times a second, and while nobody does.
//
//	go test ./poolz -run '^$' -bench Calls -benchtime 2s -count 10 | benchstat -col /page -
func BenchmarkCalls(b *testing.B) {
	p := loaded(b, 0)
	client := testpb.NewTestServiceClient(p)
	for _, name := range []string{"page=unseen", "page=seen"} {
		b.Run(name, func(b *testing.B) {
			quit, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				h := poolz.Handler([]poolz.Pool{p})
				tick := time.NewTicker(freshness)
				defer tick.Stop()
				for {
					select {
					case <-quit:
						return
					case <-tick.C:
						if name == "page=seen" {
							ask(h, "")
						}
					}
				}
			}()
			b.SetParallelism(benchCallers / 2) // on two cores
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := client.EmptyCall(b.Context(), &testpb.Empty{}); err != nil {
						b.Error(err)
						return
					}
				}
			})
			close(quit)
			<-done
		})
	}
}

// freshness is how long looks share one.
const freshness = 100 * time.Millisecond
