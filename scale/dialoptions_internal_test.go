package scale

import (
	"reflect"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/stats/opentelemetry"
)

// Dial options as other libraries wrap them. Only by embedding can they.
type (
	named struct {
		grpc.DialOption

		name string
	}
	namedTwice struct{ named }
	byPointer  struct{ *named }
	hidden     struct{ dialOption }
	anyOf      struct{ withName }
	deeper     struct {
		custom // also a dial option, but deeper down

		grpc.DialOption
	}
	custom struct {
		grpc.EmptyDialOption

		DialOption grpc.DialOption // not embedded: nobody applies it
	}

	dialOption = grpc.DialOption
	withName   interface {
		grpc.DialOption
		String() string
	}
)

func (n *named) String() string { return n.name }

// join makes one dial option of several, as modules of grpc-go do.
func join(opts ...grpc.DialOption) grpc.DialOption {
	joined := reflect.ValueOf(opentelemetry.DialOption(opentelemetry.Options{}))
	exported(joined.Elem().FieldByName("opts")).Set(reflect.ValueOf(opts))
	return joined.Interface().(grpc.DialOption)
}

func TestDialOptionsAreSeenHoweverTheyAreWrapped(t *testing.T) {
	r := manual.NewBuilderWithScheme("one")
	for name, tc := range map[string]struct {
		wrap   func(grpc.DialOption) grpc.DialOption
		hidden bool // it does nothing on a plain channel either
	}{
		"not at all":                   {wrap: func(o grpc.DialOption) grpc.DialOption { return o }},
		"by value":                     {wrap: func(o grpc.DialOption) grpc.DialOption { return named{o, "x"} }},
		"by pointer":                   {wrap: func(o grpc.DialOption) grpc.DialOption { return &named{o, "x"} }},
		"twice":                        {wrap: func(o grpc.DialOption) grpc.DialOption { return named{named{o, "x"}, "y"} }},
		"in a struct in a struct":      {wrap: func(o grpc.DialOption) grpc.DialOption { return namedTwice{named{o, "x"}} }},
		"in a pointer in a struct":     {wrap: func(o grpc.DialOption) grpc.DialOption { return &byPointer{&named{o, "x"}} }},
		"under a name that is hidden":  {wrap: func(o grpc.DialOption) grpc.DialOption { return hidden{o} }},
		"in an interface of their own": {wrap: func(o grpc.DialOption) grpc.DialOption { return anyOf{&named{o, "x"}} }},
		"beside one that is deeper":    {wrap: func(o grpc.DialOption) grpc.DialOption { return deeper{custom{}, o} }},
		"joined":                       {wrap: func(o grpc.DialOption) grpc.DialOption { return join(grpc.WithUserAgent("x"), o) }},
		"wrapped, joined and wrapped": {wrap: func(o grpc.DialOption) grpc.DialOption {
			return &named{join(named{o, "x"}, grpc.EmptyDialOption{}), "y"}
		}},
		"in an option that does nothing": {wrap: func(o grpc.DialOption) grpc.DialOption { return custom{DialOption: o} }, hidden: true},
	} {
		t.Run(name, func(t *testing.T) {
			plain, err := seeThrough([]grpc.DialOption{
				tc.wrap(grpc.WithDefaultServiceConfig("ours")), tc.wrap(grpc.WithResolvers(r)), tc.wrap(WithMaxConnections(3)),
			})
			if err != nil {
				t.Fatal(err)
			}
			found, ok := inspect(plain)
			o, err := gather(plain)
			if !ok || err != nil {
				t.Fatalf("the options cannot be read: %v", err)
			}
			if seen := found.serviceConfig != nil && *found.serviceConfig == "ours"; seen == tc.hidden {
				t.Errorf("the service config is seen: %v", seen)
			}
			if seen := slices.Contains(found.resolvers, resolver.Builder(r)); seen == tc.hidden {
				t.Errorf("the resolver is seen: %v", seen)
			}
			if seen := o.maxConnections == 3; seen == tc.hidden {
				t.Errorf("this package's own option is seen: %v", seen)
			}
		})
	}
}

func TestAnOptionThatCannotBeReadIsNamed(t *testing.T) {
	itself := &named{name: "x"}
	itself.DialOption = itself
	for name, opt := range map[string]grpc.DialOption{
		"nothing in it":      named{},
		"nothing deep in it": byPointer{},
		"only itself in it":  itself,
	} {
		if _, err := seeThrough([]grpc.DialOption{opt}); err == nil || err.Error() != "scale: the dial option "+reflect.TypeOf(opt).String()+" cannot be read" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An option that could not be read would have a default service config refused.
func TestEveryDialOptionOfGRPCCanBeRead(t *testing.T) {
	plain, err := seeThrough([]grpc.DialOption{
		grpc.EmptyDialOption{},
		grpc.WithAuthority("x"),
		grpc.WithChainStreamInterceptor(nil),
		grpc.WithChainUnaryInterceptor(nil),
		grpc.WithChannelzParentID(nil),
		grpc.WithConnectParams(grpc.ConnectParams{}),
		grpc.WithContextDialer(nil),
		grpc.WithCredentialsBundle(nil),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		grpc.WithDefaultServiceConfig("{}"),
		grpc.WithDisableHealthCheck(),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(1),
		grpc.WithInitialConnWindowSize(1),
		grpc.WithInitialWindowSize(1),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{}),
		grpc.WithLocalDNSResolution(),
		grpc.WithMaxCallAttempts(2),
		grpc.WithMaxHeaderListSize(1),
		grpc.WithNoProxy(),
		grpc.WithPerRPCCredentials(nil),
		grpc.WithReadBufferSize(1),
		grpc.WithResolvers(),
		grpc.WithStaticConnWindowSize(1),
		grpc.WithStaticStreamWindowSize(1),
		grpc.WithStatsHandler(nil),
		grpc.WithStreamInterceptor(nil),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(nil),
		grpc.WithUserAgent("x"),
		grpc.WithWriteBufferSize(1),
		experimental.WithBufferPool(mem.DefaultBufferPool()),
		opentelemetry.DialOption(opentelemetry.Options{}),
	})
	if _, ok := inspect(plain); !ok || err != nil {
		t.Errorf("they cannot be read: %v", err)
	}
}
