package shared_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// faultsOfAnHour is when something was wrong, and which calls failed.
type faultsOfAnHour struct {
	mu       sync.Mutex // guards all below
	begun    time.Time  // of the fault there is; zero if there is none
	what     string
	past     []window
	calls    int
	failures []failure
}

type window struct {
	from, to time.Time
	what     string
}

type failure struct {
	from, to time.Time
	err      error
}

func (f *faultsOfAnHour) begin(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begun, f.what = time.Now(), what
}

func (f *faultsOfAnHour) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.past = append(f.past, window{f.begun, time.Now(), f.what})
}

func (f *faultsOfAnHour) note(from time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if err != nil {
		f.failures = append(f.failures, failure{from, time.Now(), err})
	}
}

// backWithin is how long after a fault calls may fail: a second, as the pool promises, and
// the time until the next caller. But after a fault that made the link slow a dial is given
// 1.8 s, three times what the last one took, and one of those may be under way at the end of
// the next fault.
const backWithin = 2 * time.Second

// unexplained are the failures of calls that no fault touched, nor the time that the pool
// needs to come back.
func (f *faultsOfAnHour) unexplained() (texts []string) {
	for _, fail := range f.failures {
		explained := false
		for _, w := range f.past {
			explained = explained || !fail.to.Before(w.from) && !fail.from.After(w.to.Add(backWithin))
		}
		if !explained {
			texts = append(texts, fmt.Sprintf("%v to %v: %v", fail.from.Format("04:05.000"), fail.to.Format("04:05.000"), fail.err))
		}
	}
	return texts
}

// TestAnHourOfFaultsLeavesNothingBehind is row 24 of the fault matrix. That no
// goroutine stays is what the bubble and goleak check.
func TestAnHourOfFaultsLeavesNothingBehind(t *testing.T) {
	for seed := range uint64(1) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			length := time.Hour
			if raceDetector || testing.Short() {
				length /= 6 // an hour takes minutes, or seconds
			}
			synctest.Test(t, func(t *testing.T) { soak(t, rand.New(rand.NewPCG(seed, 24)), length) })
		})
	}
}

func soak(t *testing.T, rng *rand.Rand, d time.Duration) {
	server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(), grpcpooltest.WithServerOptions(grpc.MaxConcurrentStreams(12)))
	link := grpcpooltest.NewLink(server.Dial)
	f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), grpcpool.WithDialOptions(grpc.WithContextDialer(link.Dial), scale.WithMaxStreams(2)))
	if err != nil {
		t.Fatal(err)
	}
	pool := shared.New(f, 30*time.Second)
	var hour faultsOfAnHour
	ctx, cancel := context.WithCancel(context.Background())
	var callers sync.WaitGroup
	for i := range 5 {
		callers.Go(func() { hour.calling(ctx, pool, time.Duration(200+i)*time.Millisecond) })
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(time.Duration(5+rng.IntN(20)) * time.Second) // virtual: peace
		hour.strike(rng, link, server)
		synctest.Wait()
	}
	time.Sleep(5 * time.Second) // virtual: back to normal
	cancel()
	callers.Wait()
	st := pool.Stats()
	if st.Leases != 0 || st.Waiting != 0 {
		t.Errorf("after the last call %d leases are out and %d callers wait", st.Leases, st.Waiting)
	}
	for _, sub := range st.Current.Subchannels {
		for _, c := range sub.Connections {
			if c.InFlight > 1 { // a probe
				t.Errorf("%d streams are left on connection %d", c.InFlight, c.ID)
			}
		}
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
	if texts := hour.unexplained(); len(texts) > 0 {
		t.Errorf("%d of %d failures are explained by none of %d faults, the first: %v", len(texts), len(hour.failures), len(hour.past), texts[0])
	}
	t.Logf("%d calls, %d failed in %d faults, %d dials", hour.calls, len(hour.failures), len(hour.past), link.Dials())
}

// calling makes calls, each with ten seconds, in one of the ways of a user.
func (f *faultsOfAnHour) calling(ctx context.Context, pool *shared.Pool, pace time.Duration) {
	for n := 0; ctx.Err() == nil; n++ {
		start := time.Now()
		call, cancel := context.WithTimeout(ctx, 10*time.Second)
		var err error
		if n%2 == 0 {
			_, err = testpb.NewTestServiceClient(pool).EmptyCall(call, &testpb.Empty{})
		} else {
			err = onALease(call, pool)
		}
		cancel()
		if ctx.Err() == nil {
			f.note(start, err)
		}
		time.Sleep(pace) // virtual
	}
}

func onALease(ctx context.Context, pool *shared.Pool) error {
	lease, err := pool.Get(ctx)
	if err != nil {
		return err
	}
	defer lease.Return()
	stream, err := testpb.NewTestServiceClient(lease.Connection()).FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
		_, err = stream.Recv()
		return err
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	_, _ = stream.Recv() // the end
	return nil
}

// strike lets one fault happen, and pass.
func (f *faultsOfAnHour) strike(rng *rand.Rand, link *grpcpooltest.Link, server *grpcpooltest.Server) {
	length := time.Duration(rng.IntN(15_000)) * time.Millisecond
	kinds := []struct {
		what       string
		begin, end func()
	}{
		{"blackhole", func() { link.Drop(true, true) }, link.Heal},
		{"nothing comes", func() { link.Drop(false, true) }, link.Heal},
		{"nothing goes", func() { link.Drop(true, false) }, link.Heal},
		{"slow", func() { link.Delay(300 * time.Millisecond) }, func() { link.Delay(0) }},
		{"reset", link.Reset, func() {}},
		{"server stopped", server.Stop, server.Start},
		{"server restarted", func() { server.GracefulStop(); server.Start() }, func() {}},
	}
	kind := kinds[rng.IntN(len(kinds))]
	f.begin(kind.what)
	kind.begin()
	time.Sleep(length) // virtual
	kind.end()
	f.end()
}
