package scale_test

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/scale"
)

// BenchmarkUnary is empty calls on a channel that need not scale, and what the watch
// over its connection adds.
func BenchmarkUnary(b *testing.B) {
	s := start(b, nil, false, grpc.MaxConcurrentStreams(1000))
	for _, callers := range []int{1, 16, 128} {
		for _, p := range inTurn(peer{"plain", plain}, peer{"unwatched", scaled(scale.WithProbeInterval(0))}, peer{"scale", scaled()}) {
			b.Run("callers="+strconv.Itoa(callers)+"/peer="+p.name, func(b *testing.B) {
				client := s.dial(b, p)
				defer client.close()
				call := func() {
					if _, err := client.EmptyCall(b.Context(), &testpb.Empty{}); err != nil {
						b.Error(err)
					}
				}
				call()
				b.ReportAllocs()
				b.ResetTimer()
				var begun atomic.Int64
				var wg sync.WaitGroup
				for range callers {
					wg.Go(func() {
						for begun.Add(1) <= int64(b.N) {
							call()
						}
					})
				}
				wg.Wait()
			})
		}
	}
}

// BenchmarkStream is messages of 1 MiB from the server.
func BenchmarkStream(b *testing.B) {
	const size = 1 << 20
	for _, over := range []string{"tcp", "tls"} {
		s := start(b, nil, over == "tls")
		for _, p := range inTurn(peer{"plain", plain}, peer{"scale", scaled()}) {
			b.Run("over="+over+"/peer="+p.name, func(b *testing.B) {
				client := s.dial(b, p)
				defer client.close()
				stream, err := client.StreamingOutputCall(b.Context(), &testpb.StreamingOutputCallRequest{
					ResponseParameters: []*testpb.ResponseParameters{{Size: size}},
				})
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(size)
				b.ResetTimer()
				for range b.N {
					if _, err := stream.Recv(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
