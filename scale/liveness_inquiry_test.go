package scale_test

import (
	"context"
	"errors"
	"math"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// never is a probe that is not answered.
func never(ctx context.Context, _ grpc.ClientConnInterface) error {
	<-ctx.Done()
	return ctx.Err()
}

// In real time, since the clock of a bubble stands still while a call is picked and
// answered. The server acknowledges nothing, so that only its answers prove life.
func TestCallsThatAreAnsweredWhileAProbeIsOutProveLife(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s")) // whose kernel tells of no progress
	if err != nil {
		t.Fatal(err)
	}
	s := h2test.Start(l, h2test.WithFault(h2test.NeverAcknowledges))
	t.Cleanup(s.Close)
	const timeout = 250 * time.Millisecond
	c := newChannel(t, "unix:"+l.Addr().String(), scale.WithProbe(never), scale.WithProbeInterval(timeout), scale.WithProbeTimeout(timeout))
	ctx := testContext(t)
	long, err := c.stub.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := long.Recv()
		ended <- err
	}()
	pace := time.NewTicker(timeout / 2)
	defer pace.Stop()
	for sub := c.observer.Snapshot().Subchannels[0]; sub.Probes < 5; sub = c.observer.Snapshot().Subchannels[0] {
		select {
		case err := <-ended:
			t.Fatalf("the long stream was ended although calls are answered: %v", err)
		case <-pace.C:
		}
		if _, err := c.stub.EmptyCall(ctx, &testpb.Empty{}); err != nil {
			t.Fatal(err)
		}
	}
}

// Without calls the same connection is ejected: nothing proves that it is alive.
func TestAConnectionOnWhichNothingIsAnsweredIsEjected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, _ := strictInMemory(t, h2test.WithFault(h2test.NeverAcknowledges))
		c := network.channel(t, grpc.WithIdleTimeout(0), scale.WithProbe(never))
		c.Connect()
		elapse(4 * time.Second)
		if sub := c.observer.Snapshot().Subchannels[0]; sub.Ejected != 1 {
			t.Errorf("after four seconds: %+v", sub)
		}
	})
}

// A server behind a proxy may be busy, or be starting, while the proxy's HTTP/2 answers.
func TestACallToABusyServerIsAnsweredLate(t *testing.T) {
	for _, slow := range []time.Duration{1100 * time.Millisecond, 3 * time.Second, 8 * time.Second, 40 * time.Second} {
		t.Run(slow.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network, s := strictInMemory(t, h2test.WithDelay(slow)) // health checks too
				c := network.channel(t, grpc.WithIdleTimeout(0))
				begun := time.Now()
				if _, err := c.stub.EmptyCall(t.Context(), &testpb.Empty{}); err != nil || time.Since(begun) != slow {
					t.Errorf("after %v: %v", time.Since(begun), err)
				}
				if sub := c.observer.Snapshot().Subchannels[0]; sub.Ejected != 0 || sub.ProbesFailed != 0 || len(sub.Connections) != 1 {
					t.Errorf("%+v", sub)
				}
				if n := s.Counts().Connections; n > 6 {
					t.Errorf("%d connections for one call", n)
				}
			})
		})
	}
}

func TestNewCallsLeaveAConnectionThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		connection := make(chan int64, 100)
		network, s := strictInMemory(t, h2test.WithDelay(time.Hour), h2test.WithOnCall(func(call h2test.CallInfo) {
			if call.Method == testpb.TestService_EmptyCall_FullMethodName {
				connection <- call.Conn
			}
		}))
		c := network.channel(t, grpc.WithIdleTimeout(0))
		begun := time.Now()
		stuck := make(chan error, 1)
		go func() {
			_, err := c.stub.EmptyCall(t.Context(), &testpb.Empty{})
			stuck <- err
		}()
		elapse(1200 * time.Millisecond)
		s.SetDelay(0) // of what comes from now on
		elapse(300 * time.Millisecond)
		if err := hammer(t.Context(), c.stub, 1, 1); len(err) > 0 || time.Since(begun) > 1500*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		if first, second := <-connection, <-connection; first != 1 || second != 2 {
			t.Errorf("the calls were on connections %d and %d, want 1 and 2", first, second)
		}
		if err := <-stuck; err != nil || time.Since(begun) != time.Hour {
			t.Errorf("the first call ended after %v with %v", time.Since(begun), err)
		}
	})
}

// tokens are per-RPC credentials, and what they wait for.
type tokens struct {
	get atomic.Pointer[func(context.Context) error] // nil: nothing
}

func (*tokens) RequireTransportSecurity() bool { return false }

func (s *tokens) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	if get := s.get.Load(); get != nil {
		if err := (*get)(ctx); err != nil {
			return nil, err
		}
	}
	return map[string]string{"authorization": "Bearer x"}, nil
}

// hangs gives up with its caller.
func hangs(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func fails(context.Context) error { return errors.New("the token server is down") }

func TestCredentialsThatCannotBeHadSayNothingOfTheServer(t *testing.T) {
	for name, get := range map[string]func(context.Context) error{"they hang": hangs, "they fail": fails} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				creds := new(tokens)
				l := newLinked(t, serverConfig{}, grpc.WithPerRPCCredentials(creds), scale.WithIdleProbeInterval(0))
				s := l.stream(t)
				elapse(time.Second)
				creds.get.Store(&get)
				elapse(time.Minute)
				if sub := l.subchannel(); sub.Ejected != 0 || sub.Opened != 1 || sub.Replaced != 0 {
					t.Errorf("after a minute without a token: %+v", sub)
				}
				creds.get.Store(nil)
				elapse(31 * time.Second) // unanswered probes become rare
				creds.get.Store(&get)
				elapse(time.Second)
				l.link.Drop(true, true)
				endsWithin(t, s, 4500*time.Millisecond)
			})
		})
	}
}

// A server may want proof of identity for its health checks, or know none.
func TestAnyStatusOfTheServerIsLife(t *testing.T) {
	for _, code := range []codes.Code{codes.Unauthenticated, codes.ResourceExhausted, codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Internal} {
		t.Run(code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				refuses := grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return status.Error(code, "no") })
				for _, probe := range []grpc.DialOption{
					scale.WithProbeTimeout(time.Second), // the health service
					scale.WithProbe(func(ctx context.Context, cc grpc.ClientConnInterface) error {
						_, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{})
						return err
					}),
				} {
					l := newLinked(t, serverConfig{options: []grpc.ServerOption{refuses}}, probe, scale.WithIdleProbeInterval(0))
					l.stream(t)
					elapse(time.Minute)
					if sub := l.subchannel(); sub.ProbesFailed != 0 || sub.Opened != 1 || sub.Probes < 100 {
						t.Errorf("after a minute: %+v", sub)
					}
				}
			})
		})
	}
}

// refusing is a probe that does not like the connection that answers, so many times.
func refusing(refusals int64) grpc.DialOption {
	var asked atomic.Int64
	return scale.WithProbe(func(ctx context.Context, cc grpc.ClientConnInterface) error {
		_, _ = healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{})
		if asked.Add(1) <= refusals {
			return errors.New("not the one that I want")
		}
		return nil
	})
}

func TestAConnectionThatProbeWithRefusesIsReplacedByOneThatItTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinked(t, serverConfig{}, refusing(1))
		s := l.stream(t)
		elapse(time.Second)
		echoes(t, s)
		if sub := l.subchannel(); sub.Ejected != 0 || sub.Replaced != 1 {
			t.Errorf("after a second: %+v", sub)
		}
	})
}

// If no other connection is any better, it is the server, and nothing changes.
func TestAConnectionStaysIfProbeWithRefusesEveryOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinked(t, serverConfig{}, refusing(math.MaxInt64))
		s := l.stream(t)
		elapse(10 * time.Minute)
		echoes(t, s)
		if sub := l.subchannel(); sub.Ejected != 0 || sub.Replaced != 0 || sub.Opened != 1 || sub.Failed != 0 {
			t.Errorf("after ten minutes: %+v", sub)
		}
		if n := l.link.Dials(); n > 20 {
			t.Errorf("%d dials in ten minutes", n)
		}
	})
}

func echoes(t *testing.T, s testpb.TestService_FullDuplexCallClient) {
	t.Helper()
	if err := s.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Errorf("the stream ended: %v", err)
	}
}

// With every stream taken there is none for a probe.
func TestAFullConnectionThatDiesIsEjected(t *testing.T) {
	for _, limit := range []uint32{1, 4, 9} {
		synctest.Test(t, func(t *testing.T) {
			l := newLinked(t, serverConfig{limit: limit}, scale.WithMaxConnections(1), scale.WithIdleProbeInterval(0))
			streams := make([]testpb.TestService_FullDuplexCallClient, 0, limit)
			for range limit {
				streams = append(streams, l.stream(t))
			}
			elapse(time.Minute)
			if sub := l.subchannel(); sub.Ejected != 0 || sub.Opened != 1 {
				t.Errorf("after a minute: %+v", sub)
			}
			l.link.Drop(true, true)
			for _, s := range streams {
				endsWithin(t, s, 3500*time.Millisecond)
			}
		})
	}
}
