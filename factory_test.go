package grpcpool_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	_ "google.golang.org/grpc/balancer/ringhash"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

func TestANewConnectionIsConnectedAndHasAnsweredItsPing(t *testing.T) {
	l := localhost(t)
	server := grpcpooltest.NewServer(t, grpcpooltest.WithTLS(serverTLS(t, l.CA, l.Server)))
	pinged := 0
	ping := func(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
		pinged++
		return grpcpool.HealthPing(ctx, conn)
	}
	f, err := newFactory(l, server.Addr(), grpcpool.WithPing(ping))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := f.NewConnection(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if state := conn.GetState(); state != connectivity.Ready || pinged != 1 {
		t.Errorf("the channel is %v after %d pings, want READY after 1", state, pinged)
	}
	if err := f.ConnectionOk(testContext(t), conn); err != nil || pinged != 2 {
		t.Errorf("ConnectionOk: %v after %d pings, want nil after 2", err, pinged)
	}
}

// Like a fail-fast RPC: all addresses once, and the last error if none answers.
func TestEveryAddressIsTriedOnce(t *testing.T) {
	server := grpcpooltest.NewServer(t)
	dead := []string{closedPort(t), closedPort(t)}
	dial := func(addresses ...string) (tried []string, err error) {
		var mu sync.Mutex
		var state resolver.State
		for _, a := range addresses {
			state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: a}}})
		}
		builder := manual.NewBuilderWithScheme("several")
		builder.InitialState(state)
		f := plainFactory(t, "several:///addresses", grpcpool.WithDialOptions(grpc.WithResolvers(builder),
			grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
				mu.Lock()
				tried = append(tried, address)
				mu.Unlock()
				return new(net.Dialer).DialContext(ctx, "tcp", address)
			})))
		conn, err := f.NewConnection(testContext(t))
		if err == nil {
			conn.Close()
		}
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(tried), err
	}
	want := append(slices.Clone(dead), server.Addr())
	if tried, err := dial(want...); err != nil || !cmp.Equal(tried, want) {
		t.Errorf("tried %v: %v", tried, err)
	}
	tried, err := dial(dead...)
	if !cmp.Equal(tried, dead) {
		t.Errorf("tried %v, want %v", tried, dead)
	}
	wantError(t, err, "connection refused")
	wantNotOK(t, err)
}

// ring_hash connects when Connect is called once more, rls not before a call.
func TestAPolicyThatConnectsOnDemandCanBeHad(t *testing.T) {
	for _, policy := range []string{`{"ring_hash_experimental": {"requestHashHeader": "h"}}`, `{"test_on_demand": {}}`} {
		t.Run(policy, func(t *testing.T) {
			serviceConfig := grpcpool.WithDialOptions(grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [` + policy + `]}`))
			server := grpcpooltest.NewServer(t)
			conn, err := plainFactory(t, server.Addr(), serviceConfig).NewConnection(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			_, err = plainFactory(t, closedPort(t), serviceConfig).NewConnection(testContext(t))
			wantError(t, err, "grpcpool: connecting to", "connection refused")
			wantNotOK(t, err)
			_, err = plainFactory(t, rawServer(t, func(net.Conn) {}), serviceConfig).NewConnection(testContext(t))
			wantError(t, err, "grpcpool: connecting to")
			wantNotOK(t, err)
			silent := make(chan struct{})
			defer close(silent)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_, err = plainFactory(t, rawServer(t, func(net.Conn) { <-silent }), serviceConfig).NewConnection(ctx)
			wantError(t, err, "grpcpool: connecting to", "no SETTINGS")
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v does not wrap context.DeadlineExceeded", err)
			}
		})
	}
}

// test_on_demand is pick_first, and IDLE until the first call.
func init() { balancer.Register(onDemandBuilder{}) }

type onDemandBuilder struct{}

func (onDemandBuilder) Name() string { return "test_on_demand" }

func (onDemandBuilder) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	return &onDemand{cc: cc, inner: balancer.Get("pick_first").Build(cc, opts)}
}

type onDemand struct {
	cc    balancer.ClientConn
	inner balancer.Balancer

	mu     sync.Mutex // guards all below
	latest balancer.ClientConnState
	asked  bool
}

func (b *onDemand) UpdateClientConnState(s balancer.ClientConnState) error {
	b.mu.Lock()
	b.latest = s
	b.mu.Unlock()
	b.cc.UpdateState(balancer.State{ConnectivityState: connectivity.Idle, Picker: b})
	return nil
}

func (b *onDemand) Pick(balancer.PickInfo) (balancer.PickResult, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.asked {
		b.asked = true
		latest := b.latest
		go func() { _ = b.inner.UpdateClientConnState(latest) }() // pick_first has a lock
	}
	return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
}

func (*onDemand) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}
func (b *onDemand) ResolverError(err error)                                  { b.inner.ResolverError(err) }
func (b *onDemand) Close()                                                   { b.inner.Close() }
func (*onDemand) ExitIdle()                                                  {}

// A dial that runs into its deadline says what it was waiting for.
func TestADialPastItsDeadlineSaysHowFarItCame(t *testing.T) {
	l := localhost(t)
	good := withH2(serverTLS(t, l.CA, l.Server))
	hold := make(chan struct{})
	defer close(hold)
	for name, test := range map[string]struct{ server, want string }{
		"silent in the handshake": {rawServer(t, func(net.Conn) { <-hold }), "did not finish the handshake"},
		"silent after it":         {rawServer(t, func(c net.Conn) { serveTLS(c, good); <-hold }), "no SETTINGS"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := newFactory(l, test.server)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			_, err = f.NewConnection(ctx)
			wantError(t, err, test.want, test.server)
			wantNotOK(t, err)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v does not wrap context.DeadlineExceeded", err)
			}
		})
	}
}

func TestAFailedHealthCheckLeavesTheChannelOpen(t *testing.T) {
	server := grpcpooltest.NewServer(t)
	f := plainFactory(t, server.Addr(), grpcpool.WithHealthCheck(""))
	conn, err := f.NewConnection(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	server.Health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	err = f.ConnectionOk(testContext(t), conn)
	wantError(t, err, "grpcpool: pinging", "NOT_SERVING")
	wantNotOK(t, err)
	if conn.GetState() == connectivity.Shutdown {
		t.Error("a failed ping closed the channel")
	}
}

func TestAServerWithoutTheHealthServiceIsAlive(t *testing.T) {
	server := grpcpooltest.NewServer(t, grpcpooltest.WithoutHealth())
	conn, err := plainFactory(t, server.Addr()).NewConnection(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestAFailedPingIsToldWithItsCause(t *testing.T) {
	server := grpcpooltest.NewServer(t)
	cause := status.Error(codes.PermissionDenied, "not you")
	f := plainFactory(t, server.Addr(), grpcpool.WithPing(func(context.Context, *grpc.ClientConn) (time.Duration, error) {
		return 0, cause
	}))
	_, err := f.NewConnection(testContext(t))
	wantError(t, err, "grpcpool: pinging", "PermissionDenied: not you")
	wantNotOK(t, err)
	if !errors.Is(err, cause) {
		t.Errorf("%v does not wrap the ping's error", err)
	}
	wantNotOK(t, f.ConnectionOk(testContext(t), nil))
}

func TestTheCallersDialOptionsWin(t *testing.T) {
	server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
	f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(),
		grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := f.NewConnection(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if n := server.Accepted(); n != 1 {
		t.Errorf("the dialer was used %d times, want once", n)
	}
}

func TestSentinelsCarryAStatus(t *testing.T) {
	for err, want := range map[error]codes.Code{
		grpcpool.ErrClosed:          codes.Canceled,
		grpcpool.ErrConnectionNotOK: codes.Unavailable,
	} {
		if got := status.Code(err); got != want {
			t.Errorf("%v has code %v, want %v", err, got, want)
		}
		if got := status.Code(errors.Join(errors.New("other"), err)); got != want {
			t.Errorf("%v, wrapped, has code %v, want %v", err, got, want)
		}
	}
}

func wantNotOK(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, grpcpool.ErrConnectionNotOK) {
		t.Errorf("%v is not ErrConnectionNotOK", err)
	}
	if code := status.Code(err); code != codes.Unavailable {
		t.Errorf("%v has code %v, want Unavailable", err, code)
	}
}

func plainFactory(t *testing.T, address string, opts ...grpcpool.FactoryOption) *grpcpool.Factory {
	t.Helper()
	f, err := grpcpool.NewFactory(address, insecure.NewCredentials(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func startTLS(t *testing.T, config *tls.Config) string {
	t.Helper()
	return grpcpooltest.NewServer(t, grpcpooltest.WithTLS(config)).Addr()
}

func withH2(config *tls.Config) *tls.Config {
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	return config
}

// closedPort returns an address where nothing is listening.
func closedPort(t *testing.T) string {
	t.Helper()
	lis := listen(t)
	lis.Close()
	return lis.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return lis
}

// rawServer hands each connection to serve and closes it when that returns.
func rawServer(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	lis := listen(t)
	t.Cleanup(func() { lis.Close() })
	go func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return lis.Addr().String()
}

// serveTLS does the server's part of a handshake and reads what comes first.
func serveTLS(conn net.Conn, config *tls.Config) {
	server := tls.Server(conn, config)
	if server.Handshake() == nil {
		_, _ = server.Read(make([]byte, 1024))
	}
}
