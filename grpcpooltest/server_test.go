package grpcpooltest_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// newClient makes a plain channel.
func newClient(t *testing.T, server *grpcpooltest.Server, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(server.Target(), server.DialOptions(opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

func call(ctx context.Context, cc grpc.ClientConnInterface, opts ...grpc.CallOption) error {
	_, err := testpb.NewTestServiceClient(cc).EmptyCall(ctx, &testpb.Empty{}, opts...)
	return err
}

func wantCall(t *testing.T, cc grpc.ClientConnInterface) {
	t.Helper()
	if err := call(t.Context(), cc, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
}

// everywhere runs a test in memory, in a bubble, and on loopback.
func everywhere(t *testing.T, test func(t *testing.T, where ...grpcpooltest.Option)) {
	t.Helper()
	t.Run("in memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, grpcpooltest.WithInMemory()) })
	})
	t.Run("loopback", func(t *testing.T) { test(t) })
}

func TestAServerIsStoppedAndStartedAtTheSameAddress(t *testing.T) {
	everywhere(t, func(t *testing.T, where ...grpcpooltest.Option) {
		server := grpcpooltest.NewServer(t, where...)
		cc, address := newClient(t, server), server.Addr()
		for range 3 {
			wantCall(t, cc)
			server.Stop()
			if err := call(t.Context(), cc); status.Code(err) != codes.Unavailable {
				t.Errorf("a call to a stopped server ended with %v, want Unavailable", err)
			}
			if _, err := server.Dial(t.Context(), ""); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a dial to a stopped server ended with %v, want connection refused", err)
			}
			server.Stop() // does nothing
			server.Start()
			if server.Addr() != address {
				t.Fatalf("the server is at %s now, want %s", server.Addr(), address)
			}
		}
		wantCall(t, cc)
		if got := server.Counts(); got.Opened != 4 || got.Calls != 4 || server.Accepted() < 4 {
			t.Errorf("%+v and %d accepted, want 4 connections with a call each", got, server.Accepted())
		}
	})
}

func TestAGracefulStopWaitsForCallsAndAStopDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(), grpcpooltest.WithEmptyCall(func(ctx context.Context) error {
			select {
			case <-time.After(time.Minute):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}))
		done := make(chan error, 1)
		begin := func() {
			cc := newClient(t, server)
			go func() { done <- call(t.Context(), cc) }()
			synctest.Wait()
		}
		begin()
		start := time.Now()
		server.GracefulStop()
		if err := <-done; err != nil || time.Since(start) != time.Minute {
			t.Errorf("after %v the call ended with %v, want success after a minute", time.Since(start), err)
		}

		server.Start()
		begin()
		stopped := make(chan struct{})
		go func() { server.GracefulStop(); close(stopped) }()
		synctest.Wait()
		start = time.Now()
		server.Stop() // hurries the graceful one
		<-stopped
		if err := <-done; status.Code(err) != codes.Unavailable || time.Since(start) != 0 {
			t.Errorf("after %v the call ended with %v, want Unavailable at once", time.Since(start), err)
		}
	})
}

func TestGoAwayReplacesConnectionsAndFailsNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		cc := newClient(t, server)
		stream, err := testpb.NewTestServiceClient(cc).FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			server.GoAway()
			synctest.Wait()
			wantCall(t, cc)
		}
		if got := server.Counts(); got.Opened != 4 || got.Open != 2 {
			t.Errorf("%+v, want 4 connections, and of these the first and the last open", got)
		}
		if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
			t.Error(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Errorf("a stream on a connection that was told to go: %v", err)
		}
		if err := stream.CloseSend(); err != nil {
			t.Error(err)
		}
		if err := server.WaitOpen(t.Context(), 1); err != nil {
			t.Error(err)
		}
	})
}

func TestALimitHoldsForTheConnectionsThatComeAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(), grpcpooltest.WithStreamLimit(1))
		cc := newClient(t, server)
		open := func(want bool) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := call(ctx, cc); (err == nil) != want {
				t.Errorf("a second call at a time ended with %v", err)
			}
		}
		if _, err := testpb.NewTestServiceClient(cc).FullDuplexCall(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		open(false)
		server.SetStreamLimit(2)
		open(false)
		server.GoAway()
		synctest.Wait()
		open(true)
		server.Stop() // with connections of three servers
		if got := server.Counts(); got.MostCalls != 1 || got.Open != 0 {
			t.Errorf("%+v, want a call at a time and no open connection", got)
		}
	})
}

func TestTheHealthServiceSaysWhatTheTestWants(t *testing.T) {
	server := grpcpooltest.NewServer(t)
	client := healthpb.NewHealthClient(newClient(t, server))
	for _, want := range []healthpb.HealthCheckResponse_ServingStatus{
		healthpb.HealthCheckResponse_NOT_SERVING, healthpb.HealthCheckResponse_SERVING,
	} {
		server.Health.SetServingStatus("", want)
		got, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil || got.GetStatus() != want {
			t.Errorf("the health service says %v, %v, want %v", got, err, want)
		}
	}
	client = healthpb.NewHealthClient(newClient(t, grpcpooltest.NewServer(t, grpcpooltest.WithoutHealth())))
	if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("without the health service: %v, want Unimplemented", err)
	}
}

// ownService replaces the TestService of the package.
type ownService struct {
	testpb.UnimplementedTestServiceServer
}

func (ownService) EmptyCall(context.Context, *testpb.Empty) (*testpb.Empty, error) {
	return nil, status.Error(codes.DataLoss, "own service")
}

func TestTheProgramsServicesAreServedAfterEachStart(t *testing.T) {
	server := grpcpooltest.NewServer(t, grpcpooltest.WithServices(func(r grpc.ServiceRegistrar) {
		testpb.RegisterTestServiceServer(r, ownService{})
	}))
	for range 2 {
		if err := call(t.Context(), newClient(t, server)); status.Code(err) != codes.DataLoss {
			t.Errorf("the call ended with %v, want the program's answer", err)
		}
		server.Stop()
		server.Start()
	}
}

func TestMutualTLSDemandsACertificateAndChangesWithUseCerts(t *testing.T) {
	everywhere(t, func(t *testing.T, where ...grpcpooltest.Option) {
		server := grpcpooltest.NewServer(t, append(where, grpcpooltest.WithMutualTLS())...)
		old := newClient(t, server)
		wantCall(t, old)

		believing, err := server.Certs().ClientTLS()
		if err != nil {
			t.Fatal(err)
		}
		believing.Certificates = nil
		nameless := newClient(t, server, grpc.WithTransportCredentials(credentials.NewTLS(believing)))
		if err := call(t.Context(), nameless); status.Code(err) != codes.Unavailable {
			t.Errorf("a client without a certificate: %v, want Unavailable", err)
		}

		other, err := grpcpooltest.NewCerts()
		if err != nil {
			t.Fatal(err)
		}
		if err := server.UseCerts(other); err != nil {
			t.Fatal(err)
		}
		wantCall(t, old) // its connection stands
		server.GoAway()
		old.WaitForStateChange(t.Context(), connectivity.Ready)
		if err := call(t.Context(), old); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("a client of the authority that was replaced: %v, want what is wrong with the certificate", err)
		}
		wantCall(t, newClient(t, server))
	})
}

func TestTLSAndCertsOfTheTestAreServed(t *testing.T) {
	certs, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	wantCall(t, newClient(t, grpcpooltest.NewServer(t, grpcpooltest.WithCerts(certs))))
	serverTLS, err := certs.ServerTLS()
	if err != nil {
		t.Fatal(err)
	}
	clientTLS, err := certs.ClientTLS()
	if err != nil {
		t.Fatal(err)
	}
	server := grpcpooltest.NewServer(t, grpcpooltest.WithTLS(serverTLS))
	wantCall(t, newClient(t, server, grpc.WithTransportCredentials(credentials.NewTLS(clientTLS))))
	if server.Certs() != nil {
		t.Error("the certificates of a server with WithTLS are not known")
	}
	if err := server.UseCerts(certs); err == nil {
		t.Error("UseCerts of a server with WithTLS succeeded")
	}
}

func TestWithoutCountsOnlyAcceptedIsCounted(t *testing.T) {
	server := grpcpooltest.NewServer(t, grpcpooltest.WithoutCounts())
	wantCall(t, newClient(t, server))
	if got := server.Counts(); got != (grpcpooltest.Counts{}) || server.Accepted() != 1 {
		t.Errorf("%+v and %d accepted, want nothing and 1", got, server.Accepted())
	}
}

// failing is a test that a server fails.
type failing struct {
	said     []string
	cleanups []func()
}

func (*failing) Helper()                          {}
func (f *failing) Cleanup(c func())               { f.cleanups = append(f.cleanups, c) }
func (f *failing) Errorf(format string, a ...any) { f.said = append(f.said, fmt.Sprintf(format, a...)) }
func (f *failing) Fatalf(format string, a ...any) { f.Errorf(format, a...) }
func (f *failing) wantSaid(t *testing.T, s string) {
	t.Helper()
	for _, c := range f.cleanups {
		c()
	}
	if all := strings.Join(f.said, "; "); !strings.HasPrefix(all, "grpcpooltest: ") || !strings.Contains(all, s) {
		t.Errorf("the test failed with %q, want %q", all, s)
	}
}

func TestAMistakeInAnOptionFailsTheTest(t *testing.T) {
	for want, opts := range map[string][]grpcpooltest.Option{
		"an option is nil":          {nil},
		"WithServerOptions: an":     {grpcpooltest.WithServerOptions(nil)},
		"WithTLS: the":              {grpcpooltest.WithTLS(nil)},
		"WithCerts: the":            {grpcpooltest.WithCerts(nil)},
		"WithServices: the":         {grpcpooltest.WithServices(nil)},
		"WithEmptyCall: the":        {grpcpooltest.WithEmptyCall(nil)},
		"exclude each other":        {grpcpooltest.WithMutualTLS(), grpcpooltest.WithTLS(new(tls.Config))},
		"loading a certificate and": {grpcpooltest.WithCerts(&grpcpooltest.Certs{CA: newCA(t)})},
		"authority is not set":      {grpcpooltest.WithCerts(new(grpcpooltest.Certs))},
	} {
		t.Run(want, func(t *testing.T) {
			var f failing
			grpcpooltest.NewServer(&f, opts...)
			f.wantSaid(t, want)
		})
	}
}

func TestASecondStartFailsTheTest(t *testing.T) {
	var f failing
	grpcpooltest.NewServer(&f).Start()
	f.wantSaid(t, "listens already")
}

func newCA(t *testing.T) *grpcpooltest.CA {
	t.Helper()
	ca, err := grpcpooltest.NewCA("test CA")
	if err != nil {
		t.Fatal(err)
	}
	return ca
}
