package shared_test

import (
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// BenchmarkGetReturn is the cost of a lease; atomics is what its three atomic
// operations cost by themselves.
//
//	go test ./shared -run '^$' -bench GetReturn -count 10 | benchstat -col /what -
func BenchmarkGetReturn(b *testing.B) {
	p := newPool(b, &fakeFactory{}, time.Minute)
	lease := func() {
		l, err := p.Get(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		l.Return()
	}
	var word, own atomic.Uint64
	atomics := func() {
		word.Add(1)
		own.CompareAndSwap(own.Load(), 1)
		word.Add(^uint64(0))
	}
	for name, op := range map[string]func(){"what=lease": lease, "what=atomics": atomics} {
		b.Run("callers=1/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				op()
			}
		})
		b.Run("callers=64/"+name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(32) // on two cores
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					op()
				}
			})
		})
	}
}

// BenchmarkUnary is an empty RPC over loopback, on a channel and on a pool of it.
//
//	go test ./shared -run '^$' -bench Unary -count 10 | benchstat -col /on -
func BenchmarkUnary(b *testing.B) {
	server := grpcpooltest.NewServer(b, grpcpooltest.WithoutCounts())
	f, err := grpcpool.NewFactory(server.Addr(), insecure.NewCredentials())
	if err != nil {
		b.Fatal(err)
	}
	p := newPool(b, f, time.Minute)
	l := get(b, p)
	defer l.Return()
	for _, on := range []struct {
		name string
		cc   grpc.ClientConnInterface
	}{{"on=channel", l.Connection()}, {"on=pool", p}} {
		b.Run(on.name, func(b *testing.B) {
			b.ReportAllocs()
			client := testpb.NewTestServiceClient(on.cc)
			for b.Loop() {
				if _, err := client.EmptyCall(b.Context(), &testpb.Empty{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
