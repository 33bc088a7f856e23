package h2test_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
)

func start(t testing.TB, opts ...h2test.Option) *h2test.Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := h2test.Start(l, opts...)
	t.Cleanup(srv.Close)
	return srv
}

func dial(t testing.TB, srv *h2test.Server, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	opts = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, opts...)
	cc, err := grpc.NewClient("passthrough:///"+srv.Addr().String(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// call calls a method that exists nowhere; the server does not mind.
func call(ctx context.Context, cc *grpc.ClientConn, opts ...grpc.CallOption) error {
	return cc.Invoke(ctx, "/any.Service/Any", &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{}, opts...)
}

// calls makes n calls at once and fails the test unless all succeed.
func calls(t *testing.T, cc *grpc.ClientConn, n int) {
	t.Helper()
	ctx := testContext(t)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if err := call(ctx, cc); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestCallsAreAnsweredAndCounted(t *testing.T) {
	srv := start(t, h2test.WithLimit(10), h2test.WithDelay(time.Millisecond))
	calls(t, dial(t, srv), 100)
	got := srv.Counts()
	if got.MaxStreams < 1 || got.MaxStreams > 10 {
		t.Errorf("at most %d streams on one connection, want 1 to 10", got.MaxStreams)
	}
	got.MaxStreams = 0
	if diff := cmp.Diff(h2test.Counts{Connections: 1, Open: 1, Calls: 100}, got); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

func TestMutualTLSIsServed(t *testing.T) {
	local, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	serverConfig, err := local.CA.ServerConfig(local.Server)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(local.Client.CertPEM, local.Client.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(local.CA.PEM)
	srv := start(t, h2test.WithTLS(serverConfig))
	cc := dial(t, srv, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		RootCAs: roots, Certificates: []tls.Certificate{cert}, ServerName: "localhost",
	})))
	calls(t, cc, 10)
	srv.GoAway(true)
	calls(t, cc, 10)
}

func TestLargeRequestsAreReadToTheirEnd(t *testing.T) {
	srv := start(t)
	cc := dial(t, srv)
	ctx := testContext(t)
	big := &healthpb.HealthCheckRequest{Service: string(bytes.Repeat([]byte("x"), 1<<20))}
	for range 3 {
		if err := cc.Invoke(ctx, "/any.Service/Big", big, &healthpb.HealthCheckResponse{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCallsShowTheirOrder(t *testing.T) {
	var mu sync.Mutex
	var got []h2test.CallInfo
	srv := start(t, h2test.WithOnCall(func(c h2test.CallInfo) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, c)
	}))
	cc := dial(t, srv)
	want := make([]h2test.CallInfo, 0, 3)
	for i := range int64(3) {
		order := strconv.FormatInt(i, 10)
		if err := call(metadata.AppendToOutgoingContext(testContext(t), "x-order", order), cc); err != nil {
			t.Fatal(err)
		}
		want = append(want, h2test.CallInfo{Seq: i + 1, Conn: 1, Stream: uint32(2*i + 1), Method: "/any.Service/Any", Order: order})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestACancelledCallMakesRoom(t *testing.T) {
	arrived := make(chan struct{}, 1)
	srv := start(t, h2test.WithLimit(1), h2test.WithDelay(time.Hour), h2test.WithOnCall(func(h2test.CallInfo) { arrived <- struct{}{} }))
	cc := dial(t, srv)
	for range 5 {
		ctx, cancel := context.WithCancel(testContext(t))
		done := make(chan error)
		go func() { done <- call(ctx, cc) }()
		<-arrived
		cancel()
		if err := <-done; status.Code(err) != codes.Canceled {
			t.Fatalf("call: %v, want Canceled", err)
		}
	}
	if got := srv.Counts(); got.Violations != 0 || got.MaxStreams != 1 || got.Calls != 5 {
		t.Errorf("counts %+v", got)
	}
}

func TestAPlainChannelKeepsTheLimitThroughItsChanges(t *testing.T) {
	srv := start(t, h2test.WithLimit(5), h2test.WithDelay(time.Millisecond))
	cc := dial(t, srv)
	for _, n := range []int{20, 2, 8, h2test.NoLimit, 1} {
		calls(t, cc, 50)
		srv.SetLimit(n)
	}
	calls(t, cc, 10)
	if got := srv.Counts(); got.Violations != 0 || got.Calls != 260 {
		t.Errorf("counts %+v", got)
	}
}

func TestAtLimitZeroCallsWaitUntilItIsRaised(t *testing.T) {
	srv := start(t, h2test.WithLimit(0))
	cc := dial(t, srv)
	ctx := testContext(t)
	cc.Connect()
	for state := cc.GetState(); state != connectivity.Ready; state = cc.GetState() {
		if !cc.WaitForStateChange(ctx, state) {
			t.Fatalf("the channel stays %v", state)
		}
	}
	done := make(chan error)
	go func() { done <- call(ctx, cc) }()
	srv.SetLimit(1)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := srv.Counts(); got.Violations != 0 {
		t.Errorf("counts %+v", got)
	}
}

// Each round has one GOAWAY, in the middle of its calls: grpc-go retries a call
// that a server has not taken, but only once.
func TestGoingAwayFailsNoCall(t *testing.T) {
	const rounds, perRound = 10, 100
	for _, graceful := range []bool{false, true} {
		t.Run("graceful "+strconv.FormatBool(graceful), func(t *testing.T) {
			middle := make(chan struct{}, rounds)
			srv := start(t, h2test.WithLimit(10), h2test.WithDelay(time.Millisecond), h2test.WithGrace(time.Millisecond),
				h2test.WithOnCall(func(c h2test.CallInfo) {
					if c.Seq%perRound == perRound/2 {
						middle <- struct{}{}
					}
				}))
			cc := dial(t, srv)
			for range rounds {
				var away sync.WaitGroup
				away.Go(func() { <-middle; srv.GoAway(graceful) })
				calls(t, cc, perRound)
				away.Wait()
			}
			if got := srv.Counts(); got.Violations != 0 || got.Calls != rounds*perRound || got.Connections < rounds {
				t.Errorf("counts %+v", got)
			}
		})
	}
}
