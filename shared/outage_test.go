package shared_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/shared"
)

// An interceptor with a cache answers some RPCs, and others reach for the server.
func TestAnAnswerOfAnInterceptorDoesNotEndAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		cached := false
		f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(),
			grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)),
			unaryWith(func(_ context.Context, invoke func(...grpc.CallOption) error, opts []grpc.CallOption) error {
				if cached {
					return nil
				}
				return invoke(opts...)
			}))
		if err != nil {
			t.Fatal(err)
		}
		log := &told{}
		p := newPool(t, f, 0, shared.WithEvents(log.note))
		server.Stop()
		for range 20 {
			cached = !cached
			if err := emptyCall(p)(t.Context()); cached != (err == nil) || !cached && status.Code(err) != codes.Unavailable {
				t.Errorf("cached: %v, and the RPC: %v", cached, err)
			}
			time.Sleep(time.Second)
		}
		if p.Stats().LastError == nil {
			t.Error("the outage is over for the pool")
		}
		server.Start()
		time.Sleep(5 * time.Minute)
		cached = false
		if err := emptyCall(p)(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		failing, recovered := 0, 0
		for _, e := range log.all() {
			switch e.Kind {
			case shared.EventFailing:
				failing++
			case shared.EventRecovered:
				recovered++
			}
		}
		if failing != 1 || recovered != 1 || p.Stats().LastError != nil {
			t.Errorf("one outage was told of as %d begins and %d ends; the last error is %v", failing, recovered, p.Stats().LastError)
		}
	})
}
