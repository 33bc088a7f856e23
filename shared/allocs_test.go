//go:build !race

// Under the race detector sync.Pool drops at random what it is given, and grpc-go
// allocates anew: there is nothing to compare.

package shared_test

import (
	"context"
	"log/slog"
	"math"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/shared"
)

func TestGetOfALazyPoolAllocatesOnceToo(t *testing.T) {
	p, _ := inMemory(t, time.Minute, shared.WithLazy()) // nothing is connected
	borrow(t, p)
	if n := testing.AllocsPerRun(1000, func() { borrow(t, p) }); n > 1 {
		t.Errorf("%v allocations, want at most 1", n)
	}
}

func TestGetAndReturnAllocateOnce(t *testing.T) {
	for name, opts := range map[string][]shared.Option{
		"as it comes":   nil,
		"with a hook":   {shared.WithEvents(func(shared.Event) {})},
		"with a logger": {shared.WithLogger(slog.Default())},
		"with Used":     {shared.WithHooks(func(*shared.Pool) shared.Hooks { return shared.Hooks{Used: func(time.Duration) {}} })},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, &fakeFactory{}, time.Minute, opts...)
			borrow(t, p)
			if n := testing.AllocsPerRun(1000, func() { borrow(t, p) }); n > 1 {
				t.Errorf("%v allocations, want at most 1", n)
			}
		})
	}
}

func TestAnRPCOnThePoolAllocatesNoMoreThanOnItsChannel(t *testing.T) {
	p, _ := inMemory(t, time.Minute)
	l := get(t, p)
	defer l.Return()
	measure := func(cc grpc.ClientConnInterface) float64 {
		in, out := &testpb.Empty{}, &testpb.Empty{}
		return testing.AllocsPerRun(200, func() {
			if err := cc.Invoke(t.Context(), "/grpc.testing.TestService/EmptyCall", in, out); err != nil {
				t.Fatal(err)
			}
		})
	}
	// The server runs in this process too, and its goroutines allocate now and
	// then: the least of several runs is what the call itself needs.
	plain, pooled := measure(l.Connection()), measure(p)
	for range 4 {
		plain, pooled = min(plain, measure(l.Connection())), min(pooled, measure(p))
	}
	if pooled > plain {
		t.Errorf("%v allocations on the pool, %v on the channel", pooled, plain)
	}
}

// The RPCs are answered by an interceptor, so that no server's allocations are in the way.
func TestThePoolAddsNoAllocationToAnRPC(t *testing.T) {
	answers := func(context.Context, func(...grpc.CallOption) error, []grpc.CallOption) error { return nil }
	refused := status.Error(codes.NotFound, "no such order")
	refuses := func(context.Context, func(...grpc.CallOption) error, []grpc.CallOption) error { return refused }
	one := []grpc.CallOption{grpc.MaxCallRecvMsgSize(1000)}
	for name, test := range map[string]struct {
		through func(context.Context, func(...grpc.CallOption) error, []grpc.CallOption) error
		pool    []shared.Option
		opts    []grpc.CallOption
		more    float64
	}{
		"as it comes":                       {answers, nil, nil, 0},
		"with an option":                    {answers, nil, one, 0},
		"that waits":                        {answers, []shared.Option{shared.WithWaitForReady()}, nil, 0},
		"that waits, with an option":        {answers, []shared.Option{shared.WithWaitForReady()}, one, 1}, // its options are two
		"that fails":                        {refuses, nil, nil, 0},
		"before anything is connected":      {answers, []shared.Option{shared.WithLazy()}, nil, 0},
		"with a hook that does not want it": {answers, []shared.Option{shared.WithEvents(func(shared.Event) {})}, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
			f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(),
				grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)), unaryWith(test.through))
			if err != nil {
				t.Fatal(err)
			}
			p := newPool(t, f, time.Minute, test.pool...)
			l := get(t, p)
			defer l.Return()
			ctx, in, out := t.Context(), &testpb.Empty{}, &testpb.Empty{}
			measure := func(cc grpc.ClientConnInterface) float64 {
				least := math.Inf(1)
				for range 5 {
					least = min(least, testing.AllocsPerRun(1000, func() {
						_ = cc.Invoke(ctx, testpb.TestService_EmptyCall_FullMethodName, in, out, test.opts...)
					}))
				}
				return least
			}
			if plain, pooled := measure(l.Connection()), measure(p); pooled > plain+test.more {
				t.Errorf("%v allocations on the pool, %v on the channel", pooled, plain)
			}
		})
	}
}

// What a stream costs on the pool beyond what it costs on its channel: the stream
// with its lease, one more call option and its func, and the watch over a context
// that can end.
func TestAStreamOnThePoolAllocatesLittleMoreThanOnItsChannel(t *testing.T) {
	p, _ := inMemory(t, time.Minute)
	l := get(t, p)
	defer l.Return()
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	measure := func(ctx context.Context, cc grpc.ClientConnInterface) float64 {
		in, out := &testpb.StreamingOutputCallRequest{}, &testpb.StreamingOutputCallResponse{}
		least := math.Inf(1) // the server's goroutines allocate now and then
		for range 5 {
			least = min(least, testing.AllocsPerRun(100, func() {
				s, err := cc.NewStream(ctx, desc, "/grpc.testing.TestService/FullDuplexCall")
				if err != nil {
					t.Fatal(err)
				}
				_ = s.SendMsg(in)
				_ = s.CloseSend()
				for err == nil {
					err = s.RecvMsg(out)
				}
			}))
		}
		return least
	}
	for name, test := range map[string]struct {
		ctx  context.Context
		more float64
	}{"a context without an end": {context.Background(), 4}, "one that can end": {t.Context(), 7}} {
		if plain, pooled := measure(test.ctx, l.Connection()), measure(test.ctx, p); pooled > plain+test.more {
			t.Errorf("%s: %v allocations on the pool, %v on the channel", name, pooled, plain)
		}
	}
}
