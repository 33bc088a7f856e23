package scale_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/scale"
)

// dialer is scale.NewClient, or a peer to measure it against.
type dialer struct {
	name string
	dial func(target string, opts ...grpc.DialOption) (*grpc.ClientConn, error)
}

var plainAndScale = []dialer{{"plain", grpc.NewClient}, {"scale", scale.NewClient}}

// benchStub is a stub on a channel that has made a call.
func benchStub(b *testing.B, d dialer, target string, opts ...grpc.DialOption) testpb.TestServiceClient {
	b.Helper()
	cc, err := d.dial("passthrough:///"+target, append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, opts...)...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cc.Close() })
	stub := testpb.NewTestServiceClient(cc)
	if _, err := stub.EmptyCall(context.Background(), &testpb.Empty{}, grpc.WaitForReady(true)); err != nil {
		b.Fatal(err)
	}
	return stub
}

// BenchmarkUnary measures calls that need no scaling: what the policy costs.
func BenchmarkUnary(b *testing.B) {
	s := startServer(b, serverConfig{limit: 1000})
	for _, callers := range []int{1, 16, 128} {
		for _, d := range plainAndScale {
			b.Run(fmt.Sprintf("callers=%d/channel=%s", callers, d.name), func(b *testing.B) {
				stub := benchStub(b, d, s.addr)
				b.ReportAllocs()
				b.ResetTimer()
				share(b, callers, b.N, func() error {
					_, err := stub.EmptyCall(context.Background(), &testpb.Empty{})
					return err
				})
			})
		}
	}
}

// BenchmarkMiB measures a message of 1 MiB each way.
func BenchmarkMiB(b *testing.B) {
	serverTLS, clientTLS := certificates(b)
	for _, tc := range []struct {
		name   string
		server []grpc.ServerOption
		client []grpc.DialOption
	}{
		{"none", nil, nil},
		{"TLS", []grpc.ServerOption{grpc.Creds(credentials.NewTLS(serverTLS))}, []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(clientTLS))}},
	} {
		s := startServer(b, serverConfig{limit: 100, options: tc.server})
		request := &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 1<<20)}}
		for _, d := range plainAndScale {
			b.Run(fmt.Sprintf("security=%s/channel=%s", tc.name, d.name), func(b *testing.B) {
				stub := benchStub(b, d, s.addr, tc.client...)
				b.SetBytes(2 << 20)
				b.ResetTimer()
				for b.Loop() {
					if _, err := stub.UnaryCall(context.Background(), request); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// share has callers make n calls in all.
func share(b *testing.B, callers, n int, call func() error) {
	b.Helper()
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for range n/callers + boolToInt(i < n%callers) {
				if err := call(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
