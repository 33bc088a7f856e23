package snappy_test

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/davidwartell/go-grpcpool/bench/cpu"
)

// BenchmarkEcho is a unary call over loopback whose answer is its request, client and
// server in this process, compressed both ways; and without compression, for scale.
func BenchmarkEcho(b *testing.B) {
	cc := echoChannel(b)
	for _, load := range payloads {
		for _, name := range encodings() {
			b.Run("payload="+load.name+"/peer="+name, func(b *testing.B) {
				requests := make([]*wrapperspb.BytesValue, len(load.messages))
				for i, message := range load.messages {
					requests[i] = wrapperspb.Bytes(message)
				}
				call := func(i int) {
					reply := new(wrapperspb.BytesValue)
					err := cc.Invoke(b.Context(), "/bench.Echo/Echo", requests[i%len(requests)], reply, grpc.UseCompressor(wireName(name)))
					if err != nil {
						b.Fatal(err)
					}
				}
				for i := range requests { // fill the pools
					call(i)
				}
				b.ReportAllocs()
				start := cpu.Time()
				for i := 0; b.Loop(); i++ {
					call(i)
				}
				reportCPU(b, start)
			})
		}
	}
}

// encodings are the names of the peers whose turn it is, and identity.
func encodings() []string {
	var names []string
	for _, p := range inTurn() {
		names = append(names, p.name)
	}
	return append(names, encoding.Identity)
}

func wireName(name string) string {
	if name == encoding.Identity {
		return name
	}
	return peer{name: name}.Name()
}

func echoChannel(b *testing.B) *grpc.ClientConn {
	b.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "bench.Echo",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Echo",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				m := new(wrapperspb.BytesValue)
				return m, decode(m)
			},
		}},
	}, nil)
	done := make(chan error, 1)
	go func() { done <- s.Serve(lis) }()
	cc, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cc.Close()
		s.Stop()
		<-done
	})
	return cc
}
