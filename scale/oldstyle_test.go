package scale_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/connectivity"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/davidwartell/go-grpcpool/scale"
)

// test_single is a policy with one SubConn, whose addresses it updates, and on
// which it keeps a producer with a stream. It has no listener for states, so that
// they come by UpdateSubConnState.
func init() { balancer.Register(singleBuilder{}) }

type singleBuilder struct{}

func (singleBuilder) Name() string { return "test_single" }

func (singleBuilder) Build(cc balancer.ClientConn, _ balancer.BuildOptions) balancer.Balancer {
	return &single{cc: cc, stop: func() {}}
}

type single struct {
	cc   balancer.ClientConn
	sc   balancer.SubConn
	stop func()
}

func (b *single) UpdateClientConnState(s balancer.ClientConnState) error {
	if b.sc != nil {
		b.cc.UpdateAddresses(b.sc, s.ResolverState.Addresses) //nolint:staticcheck // it is what is tested
		return nil
	}
	var err error
	if b.sc, err = b.cc.NewSubConn(s.ResolverState.Addresses, balancer.NewSubConnOptions{}); err == nil { //nolint:staticcheck // deprecated for several addresses only
		b.sc.Connect()
	}
	return err
}

func (b *single) UpdateSubConnState(sc balancer.SubConn, s balancer.SubConnState) {
	picker := base.NewErrPicker(balancer.ErrNoSubConnAvailable)
	switch s.ConnectivityState {
	case connectivity.Ready:
		picker = always{sc}
		_, b.stop = sc.GetOrBuildProducer(streaming{})
	case connectivity.Idle:
		sc.Connect()
	case connectivity.TransientFailure:
		picker = base.NewErrPicker(s.ConnectionError)
	case connectivity.Shutdown:
		return
	default:
	}
	b.cc.UpdateState(balancer.State{ConnectivityState: s.ConnectivityState, Picker: picker})
}

func (*single) ResolverError(error) {}
func (*single) ExitIdle()           {}

func (b *single) Close() {
	b.stop()
	b.cc.RemoveSubConn(b.sc) //nolint:staticcheck // it is what is tested
}

type always struct{ sc balancer.SubConn }

func (p always) Pick(balancer.PickInfo) (balancer.PickResult, error) {
	return balancer.PickResult{SubConn: p.sc}, nil
}

// streaming builds a producer that keeps a stream open.
type streaming struct{}

func (streaming) Build(cc any) (balancer.Producer, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	stub := testpb.NewTestServiceClient(cc.(grpc.ClientConnInterface))
	if _, err := stub.FullDuplexCall(ctx); err != nil {
		return nil, cancel
	}
	return streaming{}, cancel
}

const testSingle = `{"loadBalancingPolicy": "test_single"}`

func TestAProducersStreamIsCountedAndMovesWhenItsConnectionIsLost(t *testing.T) {
	s := startServer(t, serverConfig{limit: 2, delay: time.Millisecond})
	w := new(wires)
	c := newChannel(t, s.addr, w.option(), scale.WithMaxConnections(3), grpc.WithDefaultServiceConfig(testSingle))
	mustHammer(t, c.stub, 10, 10)
	eventually(t, "the one stream left is the producer's", func() bool { return s.now.Load() == 1 && c.inFlight() == 1 })
	if got := c.connections(); got != 3 {
		t.Errorf("%d connections, want 3", got)
	}
	calls := s.calls.Load()
	w.cutOldest(t, c)
	eventually(t, "it is on another connection", func() bool { return s.calls.Load() == calls+1 && s.now.Load() == 1 && c.inFlight() == 1 })
	mustHammer(t, c.stub, 10, 10)
	if s.max.Load() > 6 {
		t.Errorf("%d streams ran at once on connections that allow 6", s.max.Load())
	}
}

func TestUpdatingTheAddressesOfASubConnMovesItAndLetsCallsFinish(t *testing.T) {
	gate := make(chan struct{})
	one := startServer(t, serverConfig{limit: 3, gate: gate})
	two := startServer(t, serverConfig{limit: 3})
	r := manual.NewBuilderWithScheme("moving")
	r.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: one.addr}}})
	c := newChannel(t, "moving:///x", grpc.WithResolvers(r), scale.WithMaxConnections(2), grpc.WithDefaultServiceConfig(testSingle))
	ctx := testContext(t)
	running := hold(ctx, t, one, c.stub, 5)
	eventually(t, "they run, and the producer's stream", func() bool { return one.now.Load() == 6 })
	waiting := queueCalls(ctx, t, c, 3)
	r.UpdateState(resolver.State{Addresses: []resolver.Address{{Addr: one.addr}}}) // nothing new
	r.UpdateState(resolver.State{Addresses: []resolver.Address{{Addr: two.addr}}})
	for range 3 {
		if err := <-waiting; err != nil {
			t.Error(err)
		}
	}
	mustHammer(t, c.stub, 10, 10)
	if got := two.calls.Load(); got < 103 {
		t.Errorf("the second server had %d calls, want 103 and the producer's", got)
	}
	close(gate)
	running.Wait()
}

func TestAnAddressThatStaysKeepsItsConnections(t *testing.T) {
	gate := make(chan struct{})
	one := startServer(t, serverConfig{limit: 3, gate: gate})
	two := startServer(t, serverConfig{limit: 3})
	r := manual.NewBuilderWithScheme("moving")
	both := []resolver.Address{{Addr: one.addr}, {Addr: two.addr}}
	r.InitialState(resolver.State{Addresses: both})
	c := newChannel(t, "moving:///x", grpc.WithResolvers(r), scale.WithMaxConnections(2), grpc.WithDefaultServiceConfig(testSingle))
	ctx := testContext(t)
	running := hold(ctx, t, one, c.stub, 5)
	eventually(t, "they run, and the producer's stream", func() bool { return one.now.Load() == 6 })
	r.UpdateState(resolver.State{Addresses: []resolver.Address{{Addr: two.addr}, {Addr: one.addr}}})
	r.UpdateState(resolver.State{Addresses: []resolver.Address{{Addr: one.addr}}})
	waiting := queueCalls(ctx, t, c, 3)
	close(gate)
	for range 3 {
		if err := <-waiting; err != nil {
			t.Error(err)
		}
	}
	running.Wait()
	if one, two := one.accepted.Load(), two.accepted.Load(); one != 2 || two != 0 {
		t.Errorf("the servers have had %d and %d connections, want the 2 of before to go on", one, two)
	}
	r.UpdateState(resolver.State{Addresses: []resolver.Address{{Addr: two.addr}}})
	mustHammer(t, c.stub, 10, 10, grpc.WaitForReady(true))
	eventually(t, "the calls go to the other server", func() bool { return two.calls.Load() > 0 })
}
