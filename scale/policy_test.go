package scale_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// untapped is our policy under one that keeps what it does not know from the
// SubConns, the tap among it.
type untapped struct{ balancer.Builder }

func init() { balancer.Register(untapped{balancer.Get(scale.Name)}) }

func (untapped) Name() string { return "test_untapped" }

func (u untapped) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	return u.Builder.Build(forgetful{cc}, opts)
}

func (u untapped) ParseConfig(js json.RawMessage) (serviceconfig.LoadBalancingConfig, error) {
	return u.Builder.(balancer.ConfigParser).ParseConfig(js)
}

type forgetful struct{ balancer.ClientConn }

func (f forgetful) NewSubConn(addrs []resolver.Address, opts balancer.NewSubConnOptions) (balancer.SubConn, error) {
	return f.ClientConn.NewSubConn(addrs, balancer.NewSubConnOptions{StateListener: opts.StateListener}) //nolint:staticcheck // deprecated for several addresses only
}

// plainChannel makes a channel of grpc.NewClient.
func plainChannel(tb testing.TB, target string, opts ...grpc.DialOption) testpb.TestServiceClient {
	tb.Helper()
	cc, err := grpc.NewClient(target, append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, opts...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = cc.Close() })
	return testpb.NewTestServiceClient(cc)
}

func TestWithoutATapAChannelIsAPlainOneAndSaysSoOnce(t *testing.T) {
	const warning = "works like a plain one"
	s := startStrict(t, h2test.WithLimit(5), h2test.WithDelay(time.Millisecond))
	stub := plainChannel(t, s.Addr().String(), grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"test_untapped": {}}]}`))
	before := grpcLog.count(warning)
	mustHammer(t, stub, 40, 5)
	s.GoAway(false) // a second connection, and no second warning
	mustHammer(t, stub, 40, 5)
	if got := s.Counts(); got.Connections != 2 || got.Violations > 0 {
		t.Errorf("the server saw %+v, want one connection after the other", got)
	}
	if n := grpcLog.count(warning) - before; n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
}

func TestAServiceConfigMayChooseThePolicyWithoutNewClient(t *testing.T) {
	for _, tc := range []struct {
		config string
		want   int64
	}{
		{`{"loadBalancingPolicy": "grpcpool_scale"}`, 10},
		{`{"loadBalancingConfig": [{"grpcpool_scale": {}}]}`, 10},
		{`{"loadBalancingConfig": [{"grpcpool_scale": {"maxConnectionsPerSubchannel": 3}}]}`, 3},
		{`{"loadBalancingConfig": [{"grpcpool_scale": {"maxConnectionsPerSubchannel": 30}}]}`, 10},
		{`{"loadBalancingConfig": [{"nobody_knows": {}}, {"grpcpool_scale": {"maxConnectionsPerSubchannel": 2, "childPolicy": [{"round_robin": {}}]}}]}`, 2},
	} {
		t.Run(tc.config, func(t *testing.T) {
			s := startStrict(t, h2test.WithLimit(1), h2test.WithDelay(2*time.Millisecond))
			stub := plainChannel(t, s.Addr().String(), grpc.WithDefaultServiceConfig(tc.config))
			mustHammer(t, stub, 40, 5)
			if got := s.Counts(); got.Connections != tc.want || got.Violations > 0 {
				t.Errorf("the server saw %+v, want %d connections", got, tc.want)
			}
		})
	}
}

func TestABadConfigIsAnErrorThatSaysWhatIsWrong(t *testing.T) {
	parser := balancer.Get(scale.Name).(balancer.ConfigParser)
	for js, want := range map[string]string{
		`{"maxConnectionsPerSubchannel": 0}`:                           "maxConnectionsPerSubchannel is 0, want 1 to 4294967295",
		`{"maxConnectionsPerSubchannel": -1}`:                          "maxConnectionsPerSubchannel is -1",
		`{"maxConnectionsPerSubchannel": 4294967296}`:                  "maxConnectionsPerSubchannel is 4294967296",
		`{"maxConnectionsPerSubchannel": "many"}`:                      "config of grpcpool_scale",
		`{"maxStreamsPerConnection": -1}`:                              "maxStreamsPerConnection is -1, want 0",
		`{"streamsPerUnlimitedConnection": -5}`:                        "streamsPerUnlimitedConnection is -5",
		`{"shrinkAfter": "1m"}`:                                        `shrinkAfter is "1m", want seconds`,
		`{"shrinkAfter": "-1s"}`:                                       `shrinkAfter is "-1s"`,
		`{"shrinkAfter": "1e3s"}`:                                      `shrinkAfter is "1e3s"`,
		`{"childPolicy": {"round_robin": {}}}`:                         "childPolicy: want a list",
		`{"childPolicy": [{}]}`:                                        "childPolicy[0]: want an object with one policy, got one with 0",
		`{"childPolicy": [{"nobody_knows": {}}]}`:                      `none of ["nobody_knows"] is registered`,
		`{"childPolicy": [{"grpcpool_scale": {}}]}`:                    "cannot be its own child",
		`{"childPolicy": [{"pick_first": {"shuffleAddressList": 7}}]}`: "childPolicy: the config of pick_first",
		`[`: "config of grpcpool_scale",
	} {
		_, err := parser.ParseConfig(json.RawMessage(js))
		if err == nil || !strings.HasPrefix(err.Error(), "scale: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, want one with %q", js, err, want)
		}
	}
	for _, js := range []string{
		`{}`,
		`{"maxConnectionsPerSubchannel": 1, "maxStreamsPerConnection": 0, "streamsPerUnlimitedConnection": 0, "shrinkAfter": "0s"}`,
		`{"maxConnectionsPerSubchannel": 4294967295, "shrinkAfter": "0.25s", "someday": true}`,
		`{"childPolicy": null}`,
		`{"childPolicy": [{"nobody_knows": {}}, {"round_robin": {}}]}`,
	} {
		if _, err := parser.ParseConfig(json.RawMessage(js)); err != nil {
			t.Errorf("%s: %v", js, err)
		}
	}
}

func TestABadOptionIsAnErrorOfNewClient(t *testing.T) {
	observer := new(scale.Observer)
	newChannel(t, "localhost:1", scale.WithObserver(observer))
	for want, opt := range map[string]grpc.DialOption{
		"MaxConnections(0)":         scale.WithMaxConnections(0),
		"MaxStreams(-1)":            scale.WithMaxStreams(-1),
		"UnlimitedConnection(-1)":   scale.WithStreamsPerUnlimitedConnection(-1),
		"ShrinkAfter(-1s)":          scale.WithShrinkAfter(-time.Second),
		"WithLogger(nil)":           scale.WithLogger(nil),
		"WithObserver(nil)":         scale.WithObserver(nil),
		"shows another channel":     scale.WithObserver(observer),
		"builder 1 of 1 is nil":     scale.WithResolvers(nil),
		"service config is invalid": scale.WithDefaultServiceConfig(`{`),
	} {
		cc, err := scale.NewClient("localhost:1", grpc.WithTransportCredentials(insecure.NewCredentials()), opt)
		if err == nil {
			_ = cc.Close()
		}
		if err == nil || !strings.HasPrefix(err.Error(), "scale: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want one with %q", err, want)
		}
	}
	if _, err := scale.NewClient("localhost:1"); err == nil || !strings.HasPrefix(err.Error(), "scale: grpc: no transport security") {
		t.Errorf("without credentials the error is %v, want grpc's", err)
	}
}

func TestTheOptionsDoNothingToAPlainChannel(t *testing.T) {
	s := startStrict(t, h2test.WithLimit(2), h2test.WithDelay(time.Millisecond))
	stub := plainChannel(t, s.Addr().String(), scale.WithMaxConnections(5), scale.WithMaxStreams(1), scale.WithQueueInTransport())
	mustHammer(t, stub, 10, 5)
	if got := s.Counts(); got.Connections != 1 || got.MaxStreams != 2 {
		t.Errorf("the server saw %+v, want a plain channel's one connection", got)
	}
}

func TestAConfigOfAServiceConfigReplacesTheOptionsAndIsClampedByMaxConnections(t *testing.T) {
	for _, tc := range []struct{ asked, allowed, want int }{{3, 5, 3}, {9, 5, 5}, {12, 12, 12}} {
		s := startStrict(t, h2test.WithLimit(1), h2test.WithDelay(2*time.Millisecond))
		c := newChannel(t, s.Addr().String(), scale.WithMaxConnections(tc.allowed), grpc.WithDefaultServiceConfig(
			fmt.Sprintf(`{"loadBalancingConfig": [{"grpcpool_scale": {"maxConnectionsPerSubchannel": %d}}]}`, tc.asked)))
		mustHammer(t, c.stub, 40, 5)
		if got := s.Counts().Connections; got != int64(tc.want) {
			t.Errorf("%+v: %d connections", tc, got)
		}
		if got := c.observer.Snapshot().Subchannels[0].MaxConnections; got != tc.want {
			t.Errorf("%+v: the snapshot says %d", tc, got)
		}
	}
}
