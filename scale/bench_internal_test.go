package scale

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental/stats"
	"google.golang.org/grpc/resolver"
)

// unwired is a channel that has no network: its one connection is READY at once.
type unwired struct {
	balancer.ClientConn

	picker atomic.Pointer[balancer.Picker]
}

type unwiredSubConn struct {
	balancer.SubConn

	listener func(balancer.SubConnState)
}

func (*unwired) MetricsRecorder() stats.MetricsRecorder { return stats.UnimplementedMetricsRecorder{} }

func (*unwired) NewSubConn(_ []resolver.Address, opts balancer.NewSubConnOptions) (balancer.SubConn, error) {
	return &unwiredSubConn{listener: opts.StateListener}, nil
}

func (u *unwired) UpdateState(s balancer.State) { u.picker.Store(&s.Picker) }

func (c *unwiredSubConn) Connect() {
	go func() {
		c.listener(balancer.SubConnState{ConnectivityState: connectivity.Connecting})
		c.listener(balancer.SubConnState{ConnectivityState: connectivity.Ready})
	}()
}

func (*unwiredSubConn) Shutdown() {}

func (*unwiredSubConn) RegisterHealthListener(func(balancer.SubConnState)) {}

// unwiredPick returns a function that picks once there is a connection.
func unwiredPick(b *testing.B, js string) (pick func() balancer.PickResult) {
	b.Helper()
	parsed, err := builder{}.ParseConfig(json.RawMessage(js))
	if err != nil {
		b.Fatal(err)
	}
	u := new(unwired)
	p := builder{}.Build(u, balancer.BuildOptions{DialCreds: insecure.NewCredentials()})
	b.Cleanup(p.Close)
	addrs := []resolver.Address{{Addr: "a"}}
	if err := p.UpdateClientConnState(balancer.ClientConnState{
		BalancerConfig: parsed,
		ResolverState:  resolver.State{Addresses: addrs, Endpoints: []resolver.Endpoint{{Addresses: addrs}}},
	}); err != nil {
		b.Fatal(err)
	}
	info := balancer.PickInfo{Ctx: context.Background()}
	pick = func() balancer.PickResult {
		for {
			if result, err := (*u.picker.Load()).Pick(info); err == nil {
				return result
			}
		}
	}
	pick().Done(balancer.DoneInfo{})
	return pick
}

func BenchmarkAPickOfAFreeStream(b *testing.B) {
	pick := unwiredPick(b, `{}`)
	b.ReportAllocs()
	for b.Loop() {
		pick().Done(balancer.DoneInfo{BytesReceived: true})
	}
}

// With one stream for many calls every pick but one waits for another call's Done.
func BenchmarkAPickThatWaits(b *testing.B) {
	pick := unwiredPick(b, `{"maxConnectionsPerSubchannel": 1, "maxStreamsPerConnection": 1}`)
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			pick().Done(balancer.DoneInfo{BytesReceived: true})
		}
	})
}
