package scale_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// labelled is a dial option with a label, as some company's dial helpers have it.
type labelled struct {
	grpc.DialOption

	label string
}

const roundRobin = `{"loadBalancingConfig": [{"round_robin": {}}]}`

func TestWhatIsInWrappedOptionsCounts(t *testing.T) {
	one, two := startStrict(t, h2test.WithLimit(5)), startStrict(t, h2test.WithLimit(5))
	state := resolver.State{Addresses: []resolver.Address{{Addr: one.Addr().String()}, {Addr: two.Addr().String()}}}
	for name, config := range map[string]func(r *manual.Resolver) grpc.DialOption{
		"the program's":  func(*manual.Resolver) grpc.DialOption { return grpc.WithDefaultServiceConfig(roundRobin) },
		"this package's": func(*manual.Resolver) grpc.DialOption { return scale.WithDefaultServiceConfig(roundRobin) },
	} {
		t.Run(name, func(t *testing.T) {
			r := manual.NewBuilderWithScheme("wrapped")
			r.InitialState(state)
			c := newChannel(t, "wrapped:///x", labelled{grpc.WithResolvers(r), "resolver"}, &labelled{config(r), "config"}, labelled{scale.WithMaxConnections(1), "one"})
			before := [2]int64{one.Counts().Calls, two.Counts().Calls}
			mustHammer(t, c.stub, 20, 10, grpc.WaitForReady(true))
			if n := [2]int64{one.Counts().Calls - before[0], two.Counts().Calls - before[1]}; n[0] == 0 || n[1] == 0 {
				t.Errorf("round_robin was asked for, and the servers have had %d calls", n)
			}
			if n := c.connections(); n != 2 {
				t.Errorf("%d connections, want one to each server", n)
			}
		})
	}
}

func TestAServiceConfigThatCannotBeReadIsRefused(t *testing.T) {
	wrapped := func(o grpc.DialOption) grpc.DialOption {
		for range 200 { // more than anybody would
			o = labelled{o, "x"}
		}
		return o
	}
	dial := func(opts ...grpc.DialOption) error {
		cc, err := scale.NewClient("passthrough:///x", append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		if err == nil {
			_ = cc.Close()
		}
		return err
	}
	for name, tc := range map[string]struct {
		opts []grpc.DialOption
		want string
	}{
		"a service config":         {[]grpc.DialOption{wrapped(grpc.WithDefaultServiceConfig(roundRobin))}, "scale_test.labelled cannot be read, and it sets a default service config; use scale.WithDefaultServiceConfig instead"},
		"one beside one that can":  {[]grpc.DialOption{grpc.WithDefaultServiceConfig(`{}`), wrapped(grpc.WithDefaultServiceConfig(roundRobin))}, "scale_test.labelled cannot be read"},
		"something else":           {[]grpc.DialOption{wrapped(grpc.WithUserAgent("x"))}, ""},
		"this package's, for both": {[]grpc.DialOption{wrapped(grpc.WithUserAgent("x")), scale.WithDefaultServiceConfig(roundRobin)}, ""},
		"nothing at all":           {[]grpc.DialOption{nil}, "scale: NewClient: dial option 1 of 2 is nil"},
	} {
		t.Run(name, func(t *testing.T) {
			switch err := dial(tc.opts...); {
			case tc.want == "" && err != nil:
				t.Error(err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}
