package shared_test

import (
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/shared"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"net"
)

func benchPool(b *testing.B) *shared.Pool {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := grpc.NewServer()
	go s.Serve(l)
	b.Cleanup(s.Stop)
	f, err := grpcpool.NewFactory(l.Addr().String(), insecure.NewCredentials())
	if err != nil {
		b.Fatal(err)
	}
	p := shared.New(f, time.Minute)
	b.Cleanup(func() { p.Close() })
	return p
}

func BenchmarkGetReturn(b *testing.B) {
	p := benchPool(b)
	ctx := b.Context()
	b.Run("serial", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c, err := p.Get(ctx)
			if err != nil {
				b.Fatal(err)
			}
			c.Return()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				c, err := p.Get(ctx)
				if err != nil {
					b.Fatal(err)
				}
				c.Return()
			}
		})
	})
}
