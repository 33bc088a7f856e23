//go:build !race

// Under the race detector sync.Pool drops at random what it is given, and grpc-go
// allocates anew: there is nothing to compare.

package shared_test

import (
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/shared"
)

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
