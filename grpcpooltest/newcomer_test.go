package grpcpooltest_test

import (
	"context"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
)

func dial(t *testing.T, server *grpcpooltest.Server, opts ...grpc.DialOption) testpb.TestServiceClient {
	t.Helper()
	cc, err := scale.NewClient(server.Target(), server.DialOptions(opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return testpb.NewTestServiceClient(cc)
}

func wantCode(t *testing.T, client testpb.TestServiceClient, want codes.Code) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := client.EmptyCall(ctx, &testpb.Empty{}); status.Code(err) != want {
		t.Errorf("a call: %v, want %v", err, want)
	}
}

// wantRecovery waits until a call succeeds. One that was on a connection that is cut may
// fail before.
func wantRecovery(t *testing.T, from string, client testpb.TestServiceClient) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if _, err := client.EmptyCall(ctx, &testpb.Empty{}, grpc.WaitForReady(true)); err == nil {
			return
		}
	}
	t.Errorf("no call succeeds after %q", from)
}

// The example of the package's documentation, with a plain channel and with the
// program's own service.
func TestThePackagesExampleWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(),
			grpcpooltest.WithServices(func(r grpc.ServiceRegistrar) { testpb.RegisterTestServiceServer(r, greeter{}) }))
		cc, err := grpc.NewClient(server.Target(), server.DialOptions()...)
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		server.Stop()
		begun := time.Now()
		time.AfterFunc(time.Minute, server.Start)
		if _, err := testpb.NewTestServiceClient(cc).EmptyCall(t.Context(), &testpb.Empty{}, grpc.WaitForReady(true)); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took < time.Minute {
			t.Errorf("the call took %v", took)
		}
	})
}

// Each fault begins and ends, in memory and on loopback.
func TestEveryFaultIsUndone(t *testing.T) {
	faults := func(t *testing.T, opts ...grpcpooltest.Option) {
		server := grpcpooltest.NewServer(t, opts...)
		link := grpcpooltest.NewLink(server.Dial)
		client := dial(t, server, link.DialOption())
		wantCode(t, client, codes.OK)
		for name, fault := range map[string]struct{ begin, end func() }{
			"stop":     {server.Stop, server.Start},
			"graceful": {server.GracefulStop, server.Start},
			"goaway":   {server.GoAway, func() {}},
			"limit":    {func() { server.SetStreamLimit(1); server.GoAway() }, func() { server.SetStreamLimit(0); server.GoAway() }},
			"hang":     {link.Hang, link.Heal},
			"drop":     {func() { link.Drop(false, true) }, link.Heal},
			"refuse":   {func() { link.Refuse(); link.Reset() }, link.Heal},
			"delay":    {func() { link.Delay(time.Millisecond) }, func() { link.Delay(0) }},
			"negative": {func() { link.Delay(-time.Hour) }, func() { link.Delay(0) }},
			"reset":    {link.Reset, func() {}},
		} {
			fault.begin()
			fault.end()
			fault.begin()
			fault.begin()
			fault.end()
			wantRecovery(t, name, client)
		}
	}
	t.Run("in memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { faults(t, grpcpooltest.WithInMemory(), grpcpooltest.WithMutualTLS()) })
	})
	t.Run("on loopback", func(t *testing.T) { faults(t, grpcpooltest.WithMutualTLS()) })
}

func TestTheHealthServiceIsSetAndReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		cc, err := grpc.NewClient(server.Target(), server.DialOptions()...)
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		for _, want := range []healthpb.HealthCheckResponse_ServingStatus{healthpb.HealthCheckResponse_NOT_SERVING, healthpb.HealthCheckResponse_SERVING} {
			server.Health.SetServingStatus("", want)
			got, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{})
			if err != nil || got.GetStatus() != want {
				t.Errorf("%v, %v, want %v", got.GetStatus(), err, want)
			}
		}
	})
}

// A test that fails midway ends its goroutine, and the cleanups run. Timers and
// goroutines of the test that start the server later leave nothing behind.
func TestATestThatFailsMidwayLeavesNothing(t *testing.T) {
	for name, inMemory := range map[string]bool{"in memory": true, "on loopback": false} {
		t.Run(name, func(t *testing.T) {
			var f failing
			var server *grpcpooltest.Server
			over := make(chan struct{})
			go func() {
				defer close(over)
				opts := []grpcpooltest.Option{grpcpooltest.WithMutualTLS()}
				if inMemory {
					opts = append(opts, grpcpooltest.WithInMemory())
				}
				server = grpcpooltest.NewServer(&f, opts...)
				link := grpcpooltest.NewLink(server.Dial)
				cc, err := scale.NewClient(server.Target(), server.DialOptions(link.DialOption())...)
				if err != nil {
					t.Error(err)
					return
				}
				f.Cleanup(func() { cc.Close() })
				client := testpb.NewTestServiceClient(cc)
				if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
					t.Error(err)
				}
				go func() { _, _ = client.UnaryCall(t.Context(), &testpb.SimpleRequest{}, grpc.WaitForReady(true)) }()
				link.Blackhole()
				server.GoAway()
				runtime.Goexit() // as FailNow does
			}()
			<-over
			for _, cleanup := range slices.Backward(f.cleanups) {
				cleanup()
			}
			server.Start()
			if conn, err := server.Dial(t.Context(), ""); err == nil {
				conn.Close()
				t.Error("the server serves after its test has ended")
			}
			server.Stop()
			if len(f.said) != 0 {
				t.Errorf("the server said %q", f.said)
			}
		})
	}
}

// A Start that fails is told to the test, and does not end the goroutine that called it:
// only the test's own may be ended.
func TestAStartThatFailsDoesNotEndItsGoroutine(t *testing.T) {
	fatal := &fatalTB{failing: failing{}}
	server := grpcpooltest.NewServer(fatal)
	ended := make(chan bool)
	go func() {
		returned := false
		defer func() { ended <- returned }()
		server.Start() // a second time
		returned = true
	}()
	if !<-ended {
		t.Error("Start ended the goroutine")
	}
	fatal.wantSaid(t, "listens already")
}

// fatalTB ends the goroutine as a *testing.T does.
type fatalTB struct{ failing }

func (f *fatalTB) Fatalf(format string, a ...any) {
	f.Errorf(format, a...)
	runtime.Goexit()
}

// What was not made by a constructor says so.
func TestZeroValuesSayWhatIsMissing(t *testing.T) {
	link := new(grpcpooltest.Link)
	link.Blackhole()
	link.Delay(time.Second)
	link.Reset()
	link.Heal()
	if _, err := link.Dial(t.Context(), ""); err == nil {
		t.Error("a zero Link leads somewhere")
	}
	for name, s := range map[string]*grpcpooltest.Standalone{"zero": {}, "nil": nil} {
		if err := s.Start(t.Context()); err == nil {
			t.Errorf("a %s Standalone starts", name)
		}
		if err := s.WaitOpen(t.Context(), 0); err == nil {
			t.Errorf("a %s Standalone has connections", name)
		}
		if s.Counts() != (grpcpooltest.Counts{}) {
			t.Errorf("a %s Standalone counts", name)
		}
	}
	zero := new(grpcpooltest.Standalone)
	zero.Serve()
	zero.GoAway()
	zero.SetStreamLimit(1)
	if err := zero.Stop(); err != nil {
		t.Error(err)
	}
	var none *grpcpooltest.Certs
	if _, err := none.ClientTLS(); err == nil {
		t.Error("nil Certs are credentials")
	}
	if _, err := none.ServerTLS(); err == nil {
		t.Error("nil Certs are credentials")
	}
	if _, err := none.Renew(); err == nil {
		t.Error("nil Certs renew")
	}
	if _, err := none.WriteFiles(t.TempDir()); err == nil {
		t.Error("nil Certs have files")
	}
}
