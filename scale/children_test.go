package scale_test

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	_ "google.golang.org/grpc/balancer/leastrequest"
	_ "google.golang.org/grpc/balancer/randomsubsetting"
	_ "google.golang.org/grpc/balancer/ringhash"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

func TestEveryPolicyOfGRPCCanBeTheChild(t *testing.T) {
	for _, tc := range []struct {
		child string
		both  bool // spreads calls over both servers
	}{
		{`[{"pick_first": {}}]`, false},
		{`[{"pick_first": {"shuffleAddressList": true}}]`, false},
		{`[{"round_robin": {}}]`, true},
		{`[{"least_request_experimental": {"choiceCount": 2}}]`, true},
		{`[{"ring_hash_experimental": {"requestHashHeader": "hash"}}]`, true},
		{`[{"random_subsetting_experimental": {"subsetSize": 2, "childPolicy": [{"round_robin": {}}]}}]`, true},
		{`[{"test_base": {}}]`, true},
	} {
		t.Run(tc.child, func(t *testing.T) {
			one := startStrict(t, h2test.WithLimit(3), h2test.WithDelay(2*time.Millisecond))
			two := startStrict(t, h2test.WithLimit(3), h2test.WithDelay(2*time.Millisecond))
			c := newChannel(t, "two:///x", scale.WithMaxConnections(2),
				grpc.WithResolvers(&static{"two", []string{one.Addr().String(), two.Addr().String()}, ""}),
				grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": `+tc.child+`}`))
			// Each call has a hash of its own, for ring_hash.
			var n atomic.Int64
			errs := hammer(testContext(t), hashed{c.stub, &n}, 40, 10)
			if len(errs) > 0 {
				t.Fatalf("%d calls failed, first: %v", len(errs), errs[0])
			}
			calls, connections := int64(0), int64(0)
			for _, s := range []*h2test.Server{one, two} {
				got := s.Counts()
				if got.Violations > 0 || got.MaxStreams > 3 || got.Connections > 2 || tc.both && got.Calls == 0 {
					t.Errorf("a server saw %+v", got)
				}
				calls += got.Calls
				connections += got.Connections
			}
			if calls != 400 || connections < 2 {
				t.Errorf("%d calls on %d connections, want 400 on 2 or more", calls, connections)
			}
			c.settled(t)
		})
	}
}

type hashed struct {
	testpb.TestServiceClient

	n *atomic.Int64
}

func (h hashed) EmptyCall(ctx context.Context, in *testpb.Empty, opts ...grpc.CallOption) (*testpb.Empty, error) {
	ctx = metadata.AppendToOutgoingContext(ctx, "hash", strconv.FormatInt(h.n.Add(1), 10))
	return h.TestServiceClient.EmptyCall(ctx, in, opts...)
}

// test_base is a policy in the old style of package base, which has gRPC drive the
// state of its SubConns by their health.
func init() {
	balancer.Register(base.NewBalancerBuilder("test_base", pickers{}, base.Config{HealthCheck: true}))
}

type pickers struct{}

func (pickers) Build(info base.PickerBuildInfo) balancer.Picker {
	p := &rotating{}
	for sc := range info.ReadySCs {
		p.ready = append(p.ready, sc)
	}
	if len(p.ready) == 0 {
		return base.NewErrPicker(balancer.ErrNoSubConnAvailable)
	}
	return p
}

type rotating struct {
	ready []balancer.SubConn
	next  atomic.Uint64
}

func (p *rotating) Pick(balancer.PickInfo) (balancer.PickResult, error) {
	return balancer.PickResult{SubConn: p.ready[p.next.Add(1)%uint64(len(p.ready))]}, nil
}

func TestTheChildPolicyCanBeReplacedWithoutFailingACall(t *testing.T) {
	one := startStrict(t, h2test.WithLimit(3), h2test.WithDelay(2*time.Millisecond))
	two := startStrict(t, h2test.WithLimit(3), h2test.WithDelay(2*time.Millisecond))
	r := manual.NewBuilderWithScheme("changing")
	addrs := []resolver.Address{{Addr: one.Addr().String()}, {Addr: two.Addr().String()}}
	r.InitialState(resolver.State{Addresses: addrs})
	c := newChannel(t, "changing:///x", grpc.WithResolvers(r), scale.WithMaxConnections(2))
	done := make(chan []error, 1)
	var n atomic.Int64
	go func() { done <- hammer(testContext(t), hashed{c.stub, &n}, 20, 300) }()
	children := []string{"round_robin", "pick_first", "least_request_experimental", "test_base", "round_robin", "pick_first", "round_robin"}
	for i, child := range children {
		eventually(t, "calls are served", func() bool { return n.Load() > int64(i+1)*500 })
		r.UpdateState(resolver.State{Addresses: addrs, ServiceConfig: r.CC().ParseServiceConfig(`{"loadBalancingPolicy": "` + child + `"}`)})
	}
	if errs := <-done; len(errs) > 0 {
		t.Errorf("%d of 6000 calls failed, first: %v", len(errs), errs[0])
	}
	calls := two.Counts().Calls
	mustHammer(t, c.stub, 10, 10)
	if got := two.Counts().Calls - calls; got == 0 {
		t.Error("round_robin came last, and the second server has no calls")
	}
	c.settled(t)
	for _, s := range []*h2test.Server{one, two} {
		eventually(t, "the old policies' connections are closed", func() bool { return s.Counts().Open <= 2 })
	}
}

func TestSettingsMayChangeWhileCallsWait(t *testing.T) {
	gate := make(chan struct{})
	s := startServer(t, serverConfig{limit: 1, gate: gate})
	r := manual.NewBuilderWithScheme("changing")
	r.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: s.addr}}})
	c := newChannel(t, "changing:///x", grpc.WithResolvers(r), scale.WithMaxConnections(5),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"grpcpool_scale": {"maxConnectionsPerSubchannel": 1}}]}`))
	ctx := testContext(t)
	running := hold(ctx, t, s, c.stub, 1)
	waiting := queueCalls(ctx, t, c, 3)
	r.UpdateState(resolver.State{
		Addresses:     []resolver.Address{{Addr: s.addr}},
		ServiceConfig: r.CC().ParseServiceConfig(`{"loadBalancingConfig": [{"grpcpool_scale": {"maxConnectionsPerSubchannel": 3}}]}`),
	})
	eventually(t, "two of them run on two more connections", func() bool { return s.calls.Load() == 3 })
	if got := c.connections(); got != 3 {
		t.Errorf("%d connections, want 3", got)
	}
	close(gate)
	running.Wait()
	for range 3 {
		if err := <-waiting; err != nil {
			t.Error(err)
		}
	}
}

func TestHealthChecking(t *testing.T) {
	for _, child := range []string{"round_robin", "test_base"} {
		for _, limit := range []uint32{1, 5} {
			t.Run(fmt.Sprintf("%s with a limit of %d", child, limit), func(t *testing.T) {
				checks := health.NewServer()
				s := startServer(t, serverConfig{limit: limit, delay: time.Millisecond, register: func(gs *grpc.Server) { healthpb.RegisterHealthServer(gs, checks) }})
				w := new(wires)
				c := newChannel(t, s.addr, w.option(), scale.WithMaxConnections(3),
					grpc.WithDefaultServiceConfig(`{"loadBalancingPolicy": "`+child+`", "healthCheckConfig": {"serviceName": "x"}}`))
				checks.SetServingStatus("x", healthpb.HealthCheckResponse_NOT_SERVING)
				if _, err := c.stub.EmptyCall(testContext(t), &testpb.Empty{}); status.Code(err) != codes.Unavailable || !containsAll(err.Error(), "NOT_SERVING") {
					t.Errorf("while the server is not serving the error is %v", err)
				}
				checks.SetServingStatus("x", healthpb.HealthCheckResponse_SERVING)
				mustHammer(t, c.stub, 20, 10, grpc.WaitForReady(true))
				if got := s.accepted.Load(); got != 3 {
					t.Errorf("%d connections, want 3", got)
				}
				// The watch moves to another connection when its own is lost.
				w.cutOldest(t, c)
				eventually(t, "the connection is gone", func() bool { return c.observer.Snapshot().Subchannels[0].Lost == 1 })
				mustHammer(t, c.stub, 20, 10, grpc.WaitForReady(true))
				checks.SetServingStatus("x", healthpb.HealthCheckResponse_NOT_SERVING)
				eventually(t, "the channel hears that the server stops serving", func() bool { return c.GetState() == connectivity.TransientFailure })
				checks.SetServingStatus("x", healthpb.HealthCheckResponse_SERVING)
				mustHammer(t, c.stub, 20, 10, grpc.WaitForReady(true))
				eventually(t, "the one stream left is the watch's", func() bool { return c.inFlight() == 1 && c.waiters() == 0 })
			})
		}
	}
}

func TestAServerWithoutTheHealthServiceCountsAsHealthy(t *testing.T) {
	s := startServer(t, serverConfig{limit: 1, delay: time.Millisecond})
	c := newChannel(t, s.addr, scale.WithMaxConnections(1),
		grpc.WithDefaultServiceConfig(`{"loadBalancingPolicy": "round_robin", "healthCheckConfig": {"serviceName": "x"}}`))
	mustHammer(t, c.stub, 10, 10)
}
