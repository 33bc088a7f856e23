package scale_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// Bytes arrive all the time, of a download, while calls are being begun.

// fed sends on each duplex stream every 10 ms, and answers calls.
type fed struct {
	testpb.UnimplementedTestServiceServer

	takes time.Duration // a call
}

func (f fed) EmptyCall(context.Context, *testpb.Empty) (*testpb.Empty, error) {
	time.Sleep(f.takes)
	return &testpb.Empty{}, nil
}

func (fed) FullDuplexCall(s testpb.TestService_FullDuplexCallServer) error {
	for {
		select {
		case <-s.Context().Done():
			return nil
		case <-time.After(10 * time.Millisecond):
			if err := s.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
				return err
			}
		}
	}
}

// newFed is newWatched with a server of that kind, and a download that goes on. ended is
// closed when it does not any more.
func newFed(t *testing.T, takes time.Duration) (l *linked, seen *arrivals, ended <-chan struct{}) {
	t.Helper()
	network := newInMemory()
	seen = new(arrivals)
	server := grpc.NewServer(seen.option(), grpc.WaitForHandlers(true))
	testpb.RegisterTestServiceServer(server, fed{takes: takes})
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(network)
	}()
	t.Cleanup(func() { server.Stop(); <-served })
	l = newOnLink(t, network)
	s := l.stream(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := s.Recv(); err != nil {
				return
			}
		}
	}()
	return l, seen, done
}

// Row 4: what the client sends is lost. Calls are told by 3.5 s, although bytes are heard.
func TestADeadConnectionIsFoundSoonIfManyCallsAreBegunBesideADownload(t *testing.T) {
	for _, tc := range []struct{ pace, takes time.Duration }{
		{5 * time.Millisecond, 0}, {20 * time.Millisecond, 0}, {20 * time.Millisecond, 30 * time.Millisecond}, {40 * time.Millisecond, time.Millisecond},
	} {
		for phase := range 8 {
			synctest.Test(t, func(t *testing.T) {
				l, _, ended := newFed(t, tc.takes)
				stop := traffic(l.stub, tc.pace)
				elapse(3*time.Second + time.Duration(phase)*97*time.Millisecond)
				l.link.Drop(true, false)
				dropped := time.Now()
				<-ended
				if took := time.Since(dropped); took > 3450*time.Millisecond {
					t.Errorf("with a call every %v, each of %v, the download ended after %v", tc.pace, tc.takes, took)
				}
				l.link.Heal()
				stop()
			})
		}
	}
}

// Traffic that is answered is proof enough, whether or not a download goes on; and a
// download without calls is probed as rarely as any open stream.
func TestCallsThatAreAnsweredBesideADownloadNeedNoProbes(t *testing.T) {
	for name, tc := range map[string]struct {
		pace, takes time.Duration
		most        int // probes in 20 s
	}{
		"many calls":      {10 * time.Millisecond, 0, 0},
		"fifty a second":  {20 * time.Millisecond, 10 * time.Millisecond, 0},
		"calls take long": {20 * time.Millisecond, 300 * time.Millisecond, 0},
		"and longer":      {20 * time.Millisecond, 800 * time.Millisecond, 30},
		"ten a second":    {100 * time.Millisecond, 10 * time.Millisecond, 0},
		"one a second":    {time.Second, 10 * time.Millisecond, 30},
		"none":            {time.Hour, 0, 6},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, seen, _ := newFed(t, tc.takes)
				stop := traffic(l.stub, tc.pace)
				elapse(40 * time.Second)
				before, _ := seen.counts()
				elapse(20 * time.Second)
				after, _ := seen.counts()
				stop()
				if n := after - before; n > tc.most {
					t.Errorf("%d probes in 20 s, want %d at most", n, tc.most)
				}
			})
		})
	}
}
