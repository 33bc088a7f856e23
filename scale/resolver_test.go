package scale_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// static is a resolver with a fixed answer.
type static struct {
	scheme string
	addrs  []string
	config string // "" for none
}

func (r *static) Scheme() string { return r.scheme }

func (r *static) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	var state resolver.State
	for _, addr := range r.addrs {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: addr})
	}
	if r.config != "" {
		state.ServiceConfig = cc.ParseServiceConfig(r.config)
	}
	_ = cc.UpdateState(state) // what is wrong with it, calls are told
	return r, nil
}

func (*static) ResolveNow(resolver.ResolveNowOptions) {}
func (*static) Close()                                {}

// named is a static that overrides the authority.
type named struct{ static }

func (*named) OverrideAuthority(resolver.Target) string { return "override.test" }

// registered is the builder for a scheme that is registered globally; a test puts
// what it needs into it.
var registered = &indirect{}

func init() { resolver.Register(registered) }

type indirect struct{ to atomic.Pointer[static] }

func (*indirect) Scheme() string { return "registered" }

func (r *indirect) Build(target resolver.Target, cc resolver.ClientConn, opts resolver.BuildOptions) (resolver.Resolver, error) {
	return r.to.Load().Build(target, cc, opts)
}

const (
	roundRobinWithTimeout = `{"loadBalancingConfig": [{"nobody_knows": {}}, {"round_robin": {}}], "methodConfig": [{"name": [{}], "timeout": "17s"}]}`
	pickFirstWithRetries  = `{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.001s", "maxBackoff": "0.01s",
		"backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`
)

func TestAServiceConfigKeepsEverythingAndItsPolicyBecomesTheChild(t *testing.T) {
	for name, makeOpts := range map[string]func(*static) []grpc.DialOption{
		"a registered resolver": func(r *static) []grpc.DialOption {
			registered.to.Store(r)
			return nil
		},
		"grpc.WithResolvers": func(r *static) []grpc.DialOption {
			return []grpc.DialOption{grpc.WithResolvers(r)}
		},
		"scale.WithResolvers": func(r *static) []grpc.DialOption {
			return []grpc.DialOption{scale.WithResolvers(r)}
		},
		"grpc.WithDefaultServiceConfig": func(r *static) []grpc.DialOption {
			config := r.config
			r.config = ""
			return []grpc.DialOption{grpc.WithResolvers(r), grpc.WithDefaultServiceConfig(config)}
		},
		"scale.WithDefaultServiceConfig": func(r *static) []grpc.DialOption {
			config := r.config
			r.config = ""
			return []grpc.DialOption{grpc.WithResolvers(r), scale.WithDefaultServiceConfig(config)}
		},
		"the resolver's before the default": func(r *static) []grpc.DialOption {
			return []grpc.DialOption{grpc.WithResolvers(r), grpc.WithDefaultServiceConfig(`{"loadBalancingPolicy": "pick_first"}`)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			one := startStrict(t, h2test.WithLimit(2), h2test.WithDelay(2*time.Millisecond))
			two := startStrict(t, h2test.WithLimit(2), h2test.WithDelay(2*time.Millisecond))
			opts := makeOpts(&static{"registered", []string{one.Addr().String(), two.Addr().String()}, roundRobinWithTimeout})
			c := newChannel(t, "registered:///x", append(opts, scale.WithMaxConnections(2))...)
			mustHammer(t, c.stub, 30, 10)
			if got := c.GetMethodConfig("/x/y").Timeout; got == nil || *got != 17*time.Second {
				t.Errorf("the timeout of the methodConfig is %v, want 17s", got)
			}
			for i, s := range []*h2test.Server{one, two} {
				if got := s.Counts(); got.Connections != 2 || got.Violations > 0 || got.Calls < 100 {
					t.Errorf("server %d saw %+v, want half of 300 calls on 2 connections", i, got)
				}
			}
			c.settled(t)
		})
	}
}

func TestABadServiceConfigOfAResolverIsTheErrorOfCalls(t *testing.T) {
	c := newChannel(t, "bad:///x", grpc.WithResolvers(&static{"bad", []string{"127.0.0.1:1"}, `{"loadBalancingConfig": [{"grpcpool_scale": {"shrinkAfter": "soon"}}]}`}))
	_, err := c.stub.EmptyCall(testContext(t), &testpb.Empty{})
	if status.Code(err) != codes.Unavailable || !containsAll(err.Error(), "error parsing service config", `scale: shrinkAfter is "soon"`) {
		t.Errorf("the error is %v", err)
	}
}

func TestRetriesPickAgain(t *testing.T) {
	s := startServer(t, serverConfig{limit: 3, delay: time.Millisecond, options: []grpc.ServerOption{
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			if got := md.Get("grpc-previous-rpc-attempts"); len(got) == 0 || got[0] < "3" {
				return nil, status.Error(codes.Unavailable, "again")
			}
			return h(ctx, req)
		}),
	}})
	c := newChannel(t, s.addr, scale.WithMaxConnections(2), grpc.WithDefaultServiceConfig(pickFirstWithRetries))
	mustHammer(t, c.stub, 30, 10)
	if got := s.accepted.Load(); got != 2 {
		t.Errorf("%d connections, want 2", got)
	}
	c.settled(t)
}

func TestTheAuthorityIsWhatItIsOnAPlainChannel(t *testing.T) {
	authorities := make(chan string, 1)
	s := startServer(t, serverConfig{options: []grpc.ServerOption{
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			authorities <- fmt.Sprint(md.Get(":authority"))
			return h(ctx, req)
		}),
	}})
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	startServer(t, serverConfig{listener: l, options: []grpc.ServerOption{
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			authorities <- fmt.Sprint(md.Get(":authority"))
			return h(ctx, req)
		}),
	}})
	for _, tc := range []struct {
		target string
		opts   []grpc.DialOption
	}{
		{s.addr, nil},
		{"dns:///" + s.addr, nil},
		{"passthrough:///" + s.addr, nil},
		{"unix://" + path, nil},
		{"unix:" + path, nil},
		{"own:///some/thing", []grpc.DialOption{grpc.WithResolvers(&static{"own", []string{s.addr}, ""})}},
		{"own:///some/thing", []grpc.DialOption{grpc.WithResolvers(&named{static{"own", []string{s.addr}, ""}})}},
		{"own:///some/thing", []grpc.DialOption{grpc.WithResolvers(&named{static{"own", []string{s.addr}, ""}}), grpc.WithAuthority("mine.test")}},
		// The program's own resolver comes before a registered one of the same scheme.
		{"dns:///nowhere.invalid:1", []grpc.DialOption{grpc.WithResolvers(&named{static{"dns", []string{s.addr}, ""}})}},
	} {
		t.Run(tc.target, func(t *testing.T) {
			if _, err := plainChannel(t, tc.target, tc.opts...).EmptyCall(testContext(t), &testpb.Empty{}); err != nil {
				t.Fatal(err)
			}
			want := <-authorities
			if _, err := newChannel(t, tc.target, tc.opts...).stub.EmptyCall(testContext(t), &testpb.Empty{}); err != nil {
				t.Fatal(err)
			}
			if got := <-authorities; got != want {
				t.Errorf("the authority is %v, on a plain channel %v", got, want)
			}
		})
	}
}

func TestAUnixSocketScales(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t, serverConfig{listener: l, limit: 2, delay: 2 * time.Millisecond})
	c := newChannel(t, "unix://"+path, scale.WithMaxConnections(3))
	mustHammer(t, c.stub, 20, 10)
	if got := s.accepted.Load(); got != 3 {
		t.Errorf("%d connections, want 3", got)
	}
	_ = os.Remove(path)
}

// refusingBuilder is a policy that refuses every config.
type refusingBuilder struct{ balancer.Builder }

func (refusingBuilder) ParseConfig(json.RawMessage) (serviceconfig.LoadBalancingConfig, error) {
	return nil, errors.New("refused")
}

func TestPickFirstParsesAConfigOnlyWherePlainChannelsHaveItDoSo(t *testing.T) {
	pickFirst := balancer.Get("pick_first")
	balancer.Register(refusingBuilder{pickFirst})
	defer balancer.Register(pickFirst)
	for name, opts := range map[string][]grpc.DialOption{
		"no service config":          nil,
		"one without a policy":       {grpc.WithDefaultServiceConfig(`{}`)},
		"one that names the policy":  {grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"pick_first": {}}]}`)},
		"one that names another one": {grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`)},
	} {
		opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))
		plain, plainErr := grpc.NewClient("passthrough:///nowhere", opts...)
		ours, err := scale.NewClient("passthrough:///nowhere", opts...)
		if (err == nil) != (plainErr == nil) {
			t.Errorf("%s: error %v, a plain channel's is %v", name, err, plainErr)
		}
		for _, cc := range []*grpc.ClientConn{plain, ours} {
			if cc != nil {
				cc.Close()
			}
		}
	}
}
