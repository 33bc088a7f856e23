package scale_test

import (
	"context"
	"crypto/tls"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
)

// siege has callers at work for d, each call with a body and a deadline of its
// own, and says how the calls ended.
func siege(tb testing.TB, stub testpb.TestServiceClient, d time.Duration) (ended map[codes.Code]int, sample map[codes.Code]error) {
	tb.Helper()
	ended, sample = make(map[codes.Code]int), make(map[codes.Code]error)
	body := &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 100<<10)}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	for range 10 {
		wg.Go(func() {
			for time.Now().Before(end) {
				ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
				_, err := stub.UnaryCall(ctx, body)
				cancel()
				mu.Lock()
				ended[status.Code(err)]++
				sample[status.Code(err)] = err
				mu.Unlock()
				if err != nil {
					time.Sleep(5 * time.Millisecond) // as a caller might before it tries again
				}
			}
		})
	}
	wg.Wait()
	return ended, sample
}

// heapGrowth samples the heap until stop, and returns the most it has grown.
func heapGrowth() (stop func() int64) {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	runtime.GC()
	before, done, most := heap(), make(chan struct{}), int64(0)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				most = max(most, heap()-before)
			case <-done:
				return
			}
		}
	})
	return func() int64 { close(done); wg.Wait(); return most }
}

// A server may do whatever it likes: calls end by their deadlines, memory and dials
// are bounded, and when the server has come to, calls are served. What needs no
// socket is met in virtual time.
func TestAHostileServerHarmsNobodyForLong(t *testing.T) {
	for _, fault := range h2test.Faults() {
		t.Run(fault.String(), func(t *testing.T) {
			opts := []h2test.Option{h2test.WithLimit(100), h2test.WithFault(fault)}
			if fault.NeedsSocket() {
				s := startStrict(t, opts...)
				besiege(t, newChannel(t, s.Addr().String()), s, fault, 750*time.Millisecond, 4)
				return
			}
			synctest.Test(t, func(t *testing.T) {
				network, s := strictInMemory(t, append(opts, h2test.WithDelay(20*time.Millisecond))...) // or good answers would take no time
				besiege(t, network.channel(t), s, fault, 1500*time.Millisecond, 4)                      // 5 in 3 s, so half of that and the first
			})
		})
	}
}

// healsWithin is how long it may take until calls are served again. With the race
// detector a process on two cores is many times slower at reading what a flood has left
// in the kernel's buffers. A connection on which the server is silent keeps its place in
// the server's queue, and no other is dialled beside it for 10 to 12.5 seconds.
func healsWithin(fault h2test.Fault) time.Duration {
	if fault == h2test.Silent {
		return 12500 * time.Millisecond
	}
	if raceDetector && fault.NeedsSocket() {
		return 15 * time.Second
	}
	return 4 * time.Second
}

// besiege has many callers call s for d while it misbehaves, in which it may be dialled
// mostDials times, and then waits until it serves c.
func besiege(t *testing.T, c *channel, s *h2test.Server, fault h2test.Fault, d time.Duration, mostDials int64) {
	t.Helper()
	grown := heapGrowth()
	begun := time.Now()
	ended, sample := siege(t, c.stub, d)
	took, heap := time.Since(begun), grown()
	dials := s.Counts().Connections
	t.Logf("calls %v, %d connections, heap grew by %d KiB at most", ended, dials, heap>>10)
	for code, err := range sample {
		t.Logf("%v: %v", code, err)
	}
	if took > d+1500*time.Millisecond {
		t.Errorf("the calls took %v, with deadlines of 300ms", took)
	}
	if dials > mostDials {
		t.Errorf("%d connections in %v", dials, took)
	}
	if heap > 128<<20 {
		t.Errorf("the heap grew by %d MiB", heap>>20)
	}
	s.SetFault(h2test.NoFault)
	switch fault { //nolint:exhaustive // the others are found out
	case h2test.ResetsCalls, h2test.PushPromise, h2test.HugeHeaders: // such a connection answers, in its way, and may be kept
		s.GoAway(false)
	case h2test.EndlessData: // and such a one looks like a large download, behind which probes wait
		return
	}
	healed := time.Now()
	eventually(t, "calls are served", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		_, err := c.stub.EmptyCall(ctx, &testpb.Empty{})
		return err == nil
	})
	t.Logf("served %v after the server came to", time.Since(healed).Round(time.Millisecond))
	if took := time.Since(healed); took > healsWithin(fault) {
		t.Errorf("calls are served only %v after the server came to", took)
	}
}

// A peer that accepts and says nothing: a call fails in time and says why.
func TestAServerThatNeverSendsSettingsFailsACallInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, s := strictInMemory(t, h2test.WithFault(h2test.Silent))
		c := network.channel(t)
		for range 3 {
			begun := time.Now()
			_, err := c.stub.EmptyCall(t.Context(), &testpb.Empty{})
			if took := time.Since(begun); took > 3*time.Second || status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "SETTINGS") {
				t.Errorf("after %v: %v", took, err)
			}
		}
		if n := s.Counts().Connections; n > 3 {
			t.Errorf("%d connections for 3 calls", n)
		}
		s.SetFault(h2test.NoFault)
		begun := time.Now()
		if _, err := c.stub.EmptyCall(t.Context(), &testpb.Empty{}, grpc.WaitForReady(true)); err != nil || time.Since(begun) > 10*time.Second {
			t.Errorf("when the server has come to, after %v: %v", time.Since(begun), err)
		}
	})
}

// With another backend, calls go there meanwhile, under either policy.
func TestASilentBackendIsLeftForAnother(t *testing.T) {
	for _, policy := range []string{"pick_first", "round_robin"} {
		t.Run(policy, func(t *testing.T) {
			silent, good := startStrict(t, h2test.WithFault(h2test.Silent)), startStrict(t)
			builder := manual.NewBuilderWithScheme("backends")
			builder.InitialState(resolver.State{Endpoints: []resolver.Endpoint{
				{Addresses: []resolver.Address{{Addr: silent.Addr().String()}}},
				{Addresses: []resolver.Address{{Addr: good.Addr().String()}}},
			}})
			c := newChannel(t, "backends:///any", grpc.WithResolvers(builder),
				grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"`+policy+`":{}}]}`))
			begun := time.Now()
			if _, err := c.stub.EmptyCall(testContext(t), &testpb.Empty{}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begun); took > 3*time.Second {
				t.Errorf("the call took %v", took)
			}
			if n := good.Counts().Calls; n != 1 {
				t.Errorf("the good backend had %d calls", n)
			}
		})
	}
}

// A server may take seconds over a handshake: it is given more time when it did not
// come to an end in the first.
func TestASlowHandshakeSucceedsInTheEnd(t *testing.T) {
	for _, slow := range []time.Duration{2 * time.Second, 8 * time.Second} {
		t.Run(slow.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				serverTLS, clientTLS := certificates(t)
				clientTLS.ServerName = "localhost"
				serverTLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
					time.Sleep(slow)
					return nil, nil //nolint:nilnil // crypto/tls goes on with the config that it has
				}
				network, s := strictInMemory(t, h2test.WithTLS(serverTLS))
				c := network.channel(t, grpc.WithTransportCredentials(credentials.NewTLS(clientTLS)))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				begun := time.Now()
				if _, err := c.stub.EmptyCall(ctx, &testpb.Empty{}, grpc.WaitForReady(true)); err != nil {
					t.Fatal(err)
				}
				t.Logf("served after %v and %d connections", time.Since(begun), s.Counts().Connections)
			})
		})
	}
}
