package shared_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
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

// fallibleChannels makes a channel unless fail is set.
type fallibleChannels struct {
	*grpcpool.Factory

	fail error
}

func (f *fallibleChannels) NewChannel(ctx context.Context) (*grpc.ClientConn, grpcpool.Inspector, error) {
	if f.fail != nil {
		return nil, nil, f.fail
	}
	return f.Factory.NewChannel(ctx)
}

func TestAChannelThatCannotBeMadeForACallIsAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		inner, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
		if err != nil {
			t.Fatal(err)
		}
		f, log := &fallibleChannels{inner, errScripted}, &told{}
		p := newPool(t, f, 0, shared.WithEvents(log.note))
		for range 3 {
			if err := emptyCall(p)(t.Context()); !errors.Is(err, errScripted) || !errors.Is(err, grpcpool.ErrConnectionNotOK) {
				t.Errorf("a call without a channel: %v", err)
			}
		}
		if s := p.Stats(); !errors.Is(s.LastError, errScripted) || s.State != shared.StateFailing {
			t.Errorf("the pool is %q, and its last error %v", s.State, s.LastError)
		}
		f.fail = nil
		if err := emptyCall(p)(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if s := p.Stats(); s.LastError != nil || s.State != shared.StateReady {
			t.Errorf("the pool is %q, and its last error %v", s.State, s.LastError)
		}
		var changes []shared.EventKind
		for _, e := range log.all() {
			if e.Kind == shared.EventFailing || e.Kind == shared.EventRecovered {
				changes = append(changes, e.Kind)
			}
		}
		if diff := cmp.Diff([]shared.EventKind{shared.EventFailing, shared.EventRecovered}, changes); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
