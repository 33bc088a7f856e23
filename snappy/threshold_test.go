package snappy_test

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/davidwartell/go-grpcpool/snappy"
)

func TestTheInterceptorCompressesBySize(t *testing.T) {
	const threshold = 1024
	w := new(wire)
	addr := serve(t, grpc.StatsHandler(w))
	threshold1K := grpc.WithChainUnaryInterceptor(snappy.UnaryClientInterceptor(threshold))
	byDefault := grpc.WithDefaultCallOptions(grpc.UseCompressor(snappy.Name))
	overhead := proto.Size(wrapperspb.Bytes(make([]byte, threshold))) - threshold

	for _, c := range []struct {
		name string
		cc   *grpc.ClientConn
		opts []grpc.CallOption
		size int
		want string
	}{
		{"at the threshold", dial(t, addr, threshold1K), nil, threshold, "snappy"},
		{"below it", dial(t, addr, threshold1K), nil, threshold - 1, "identity"},
		{"at it, snappy by default", dial(t, addr, threshold1K, byDefault), nil, threshold, "snappy"},
		{"below it, snappy by default", dial(t, addr, threshold1K, byDefault), nil, threshold - 1, "identity"},
		{"gzip by call", dial(t, addr, threshold1K, byDefault), []grpc.CallOption{grpc.UseCompressor(gzip.Name)}, 10, "gzip"},
		{"none by call", dial(t, addr, threshold1K, byDefault), []grpc.CallOption{grpc.UseCompressor("identity")}, 1 << 20, "identity"},
	} {
		if err := echo(t, c.cc, make([]byte, c.size-overhead), c.opts...); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if w.encoding != c.want {
			t.Errorf("%s: encoding %q, want %q", c.name, w.encoding, c.want)
		}
		if c.want == "identity" && w.sent != w.sentFor {
			t.Errorf("%s: the answer was compressed", c.name)
		}
	}
}

// The options a caller passes may be a slice that others share.
func TestTheInterceptorLeavesTheCallersOptionsAlone(t *testing.T) {
	cc := dial(t, serve(t), grpc.WithChainUnaryInterceptor(snappy.UnaryClientInterceptor(1<<20)))
	opts := make([]grpc.CallOption, 1, 2)
	opts[0] = grpc.WaitForReady(true)
	if err := echo(t, cc, []byte("small"), opts...); err != nil {
		t.Fatal(err)
	}
	if opts[:2][1] != nil {
		t.Error("something was put behind the caller's options")
	}
}

func TestARequestThatIsNoProtobufCountsAsLarge(t *testing.T) {
	var got string
	invoke := func(_ any, opts []grpc.CallOption) {
		for _, o := range opts {
			if c, ok := o.(grpc.CompressorCallOption); ok {
				got = c.CompressorType
			}
		}
	}
	intercept := snappy.UnaryClientInterceptor(1 << 20)
	err := intercept(t.Context(), echoMethod, "not a message", nil, nil, invoker(invoke))
	if err != nil || got != "snappy" {
		t.Errorf("encoding %q, %v", got, err)
	}
}

func invoker(f func(req any, opts []grpc.CallOption)) grpc.UnaryInvoker {
	return func(_ context.Context, _ string, req, _ any, _ *grpc.ClientConn, opts ...grpc.CallOption) error {
		f(req, opts)
		return nil
	}
}
