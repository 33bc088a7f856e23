package shared_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// benchmarkCallers runs op with 1, 16 and 128 callers at a time.
func benchmarkCallers(b *testing.B, what string, op func() error) {
	b.Helper()
	for _, callers := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("callers=%d/%s", callers, what), func(b *testing.B) {
			b.ReportAllocs()
			if callers == 1 {
				for b.Loop() {
					if err := op(); err != nil {
						b.Fatal(err)
					}
				}
				return
			}
			b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := op(); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkGetReturn is the cost of a lease; atomics is what its three atomic
// operations cost by themselves.
//
//	go test ./shared -run '^$' -bench GetReturn -count 10 | benchstat -col /what -
func BenchmarkGetReturn(b *testing.B) {
	p := newPool(b, &fakeFactory{}, time.Minute)
	ctx := b.Context()
	benchmarkCallers(b, "what=lease", func() error {
		l, err := p.Get(ctx)
		if err == nil {
			l.Return()
		}
		return err
	})
	var word, own atomic.Uint64
	benchmarkCallers(b, "what=atomics", func() error {
		word.Add(1)
		own.CompareAndSwap(own.Load(), 1)
		word.Add(^uint64(0))
		return nil
	})
}

// overLoopback is a channel to a server on this machine, and a pool of it.
func overLoopback(b *testing.B) map[string]grpc.ClientConnInterface {
	b.Helper()
	server := grpcpooltest.NewServer(b, grpcpooltest.WithoutCounts())
	f, err := grpcpool.NewFactory(server.Addr(), insecure.NewCredentials())
	if err != nil {
		b.Fatal(err)
	}
	p := newPool(b, f, time.Minute)
	l := get(b, p)
	b.Cleanup(l.Return)
	return map[string]grpc.ClientConnInterface{"on=channel": l.Connection(), "on=pool": p}
}

// BenchmarkUnary is an empty RPC over loopback, on a channel and on a pool of it.
//
//	go test ./shared -run '^$' -bench Unary -count 10 | benchstat -col /on -
func BenchmarkUnary(b *testing.B) {
	ctx := b.Context()
	for on, cc := range overLoopback(b) {
		client := testpb.NewTestServiceClient(cc)
		benchmarkCallers(b, on, func() error {
			_, err := client.EmptyCall(ctx, &testpb.Empty{})
			return err
		})
	}
}

// BenchmarkStream is a stream of one message there and back, from its begin to its end.
func BenchmarkStream(b *testing.B) {
	ctx := b.Context()
	for on, cc := range overLoopback(b) {
		client := testpb.NewTestServiceClient(cc)
		benchmarkCallers(b, on, func() error { return oneStream(ctx, client) })
	}
}

func oneStream(ctx context.Context, client testpb.TestServiceClient) error {
	s, err := client.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	_ = s.Send(&testpb.StreamingOutputCallRequest{}) // if it fails, Recv says why
	_ = s.CloseSend()
	for err == nil {
		_, err = s.Recv()
	}
	if err == io.EOF { //nolint:errorlint // gRPC returns it as it is
		return nil
	}
	return err
}

// instant is a channel's interceptor that answers by itself, so that what is left of an RPC
// is what the pool adds to it.
func instant(context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption) error {
	return nil
}

// BenchmarkOverhead is what the pool adds to a unary RPC: the RPC itself is answered by an
// interceptor.
//
//	go test ./shared -run '^$' -bench Overhead -count 10 | benchstat -col /on -
func BenchmarkOverhead(b *testing.B) {
	server := grpcpooltest.NewServer(b, grpcpooltest.WithoutCounts())
	f, err := grpcpool.NewFactory(server.Addr(), insecure.NewCredentials(),
		grpcpool.WithPing(func(context.Context, *grpc.ClientConn) (time.Duration, error) { return 0, nil }),
		grpcpool.WithDialOptions(grpc.WithUnaryInterceptor(instant)))
	if err != nil {
		b.Fatal(err)
	}
	p := newPool(b, f, time.Minute)
	ctx, l := b.Context(), get(b, p)
	b.Cleanup(l.Return)
	for on, cc := range map[string]grpc.ClientConnInterface{"on=channel": l.Connection(), "on=pool": p} {
		benchmarkCallers(b, on, func() error { return cc.Invoke(ctx, "/a/B", nil, nil) })
	}
}
