package shared_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

// linked makes a pool over real channels to a real server in memory, over a link
// with faults. The rows are those of the fault matrix.
func linked(t *testing.T) (*shared.Pool, *grpcpooltest.Link) {
	t.Helper()
	server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
	link := grpcpooltest.NewLink(server.Dial)
	f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(),
		grpcpool.WithDialOptions(grpc.WithContextDialer(link.Dial)))
	if err != nil {
		t.Fatal(err)
	}
	return newPool(t, f, 0), link
}

// callEvery calls on the pool at a pace until stop, and counts what went well.
func callEvery(pace time.Duration, p *shared.Pool) (good *atomic.Int64, stop func()) {
	good = new(atomic.Int64)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if _, err := testpb.NewTestServiceClient(p).EmptyCall(ctx, &testpb.Empty{}); err == nil {
				good.Add(1)
			}
			time.Sleep(pace) // virtual
		}
	})
	return good, func() {
		cancel()
		wg.Wait()
	}
}

func TestRPCsOnLeasesEndSoonWhenTheNetworkIsGone(t *testing.T) {
	for _, tc := range []struct {
		name     string
		up, down bool
	}{{"row 1", true, true}, {"row 3", false, true}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, link := linked(t)
				lease := get(t, p)
				defer lease.Return()
				stream, err := testpb.NewTestServiceClient(lease.Connection()).FullDuplexCall(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				link.Drop(tc.up, tc.down)
				start := time.Now()
				_, err = stream.Recv()
				if took := time.Since(start); took > 3500*time.Millisecond || status.Code(err) != codes.Unavailable { // nothing can take its place
					t.Errorf("the stream ended after %v with %v, want Unavailable in 3.5 s at most", took, err)
				}
				time.Sleep(4 * time.Second)               // virtual: the pool has found out, too
				go func() { _, _ = p.Get(t.Context()) }() // finds out whether it is over
				synctest.Wait()
				start = time.Now()
				if _, err := p.Get(t.Context()); !errors.Is(err, grpcpool.ErrConnectionNotOK) || time.Since(start) > 50*time.Millisecond {
					t.Errorf("Get said %v after %v, want ErrConnectionNotOK at once", err, time.Since(start))
				}
			})
		})
	}
}

func TestAnIdleConnectionThatDiedIsNotLent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // row 2
		p, link := linked(t)
		borrow(t, p)
		time.Sleep(10 * time.Second) // virtual: it is idle
		link.Drop(true, true)
		time.Sleep(500 * time.Millisecond) // virtual: the last proof is too old
		start := time.Now()
		if _, err := p.Get(t.Context()); !errors.Is(err, grpcpool.ErrConnectionNotOK) {
			t.Errorf("Get of a dead connection said %v, want ErrConnectionNotOK", err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestThePoolIsBackWithinASecondOfTheEndOfALongOutage(t *testing.T) {
	for _, outage := range []time.Duration{2 * time.Second, 30 * time.Second, 10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) { // row 9
			p, link := linked(t)
			good, stop := callEvery(50*time.Millisecond, p)
			defer stop()
			time.Sleep(5 * time.Second) // virtual
			for i := range 5 {
				link.Drop(true, true)
				time.Sleep(outage + time.Duration(i)*173*time.Millisecond) // virtual
				before, dials := good.Load(), link.Dials()
				link.Heal()
				time.Sleep(time.Second) // virtual
				if good.Load() == before {
					t.Errorf("no call went through in the second after an outage of %v (%d dials)", outage, dials)
				}
				time.Sleep(10 * time.Second) // virtual
			}
		})
	}
}

func TestASlowNetworkIsNotADeadOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // row 15
		p, link := linked(t)
		link.Delay(200 * time.Millisecond)
		lease := get(t, p)
		defer lease.Return()
		time.Sleep(10 * time.Minute) // virtual
		st := p.Stats()
		if st.Dials != 1 || st.Replaced != 0 || len(st.Current.Subchannels) != 1 || st.Current.Subchannels[0].Ejected != 0 {
			t.Errorf("after ten minutes: %+v", st)
		}
	})
}

// Dials of an address that is known to be near are given up soon. If it is not near
// any more, that must not go on for ever.
func TestAnAddressThatHasBecomeFarIsReachedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, link := linked(t)
		good, stop := callEvery(20*time.Millisecond, p)
		defer stop()
		time.Sleep(time.Second)            // virtual, as what follows
		link.Delay(450 * time.Millisecond) // a dial takes twice that
		link.Reset()
		time.Sleep(20 * time.Second)
		before := good.Load()
		time.Sleep(6 * time.Second)
		if n := good.Load() - before; n < 2 { // each after a test, which takes as long
			t.Errorf("%d good calls in 6 s, want one every 2.4 s or so", n)
		}
	})
}
