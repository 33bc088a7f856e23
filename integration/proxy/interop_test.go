//go:build unix

package proxy_test

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/snappy"
)

// The cases that need neither credentials nor a server made to misbehave
// (doc/interop-test-descriptions.md in grpc/grpc). Those with credentials are in
// credentials_test.go, load reports, soaking and several servers in cases_test.go. A
// case that fails ends the program with its reason.
func TestGRPCsOwnCasesPass(t *testing.T) {
	s := startServer(t, interop.NewTestServer())
	p := startProxy(t, s.certs, s.addr)
	cc := p.client()
	tc := testpb.NewTestServiceClient(cc)
	for name, opts := range map[string][]grpc.CallOption{
		"plain":  nil,
		"gzip":   {grpc.UseCompressor(gzip.Name)},
		"snappy": {grpc.UseCompressor(snappy.Name)},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, 2*soon)
			interop.DoEmptyUnaryCall(ctx, tc, opts...)
			interop.DoLargeUnaryCall(ctx, tc, opts...)
			interop.DoClientStreaming(ctx, tc, opts...)
			interop.DoServerStreaming(ctx, tc, opts...)
			interop.DoPingPong(ctx, tc, opts...)
			interop.DoEmptyStream(ctx, tc, opts...)
			interop.DoTimeoutOnSleepingServer(ctx, tc, opts...)
			interop.DoCancelAfterBegin(ctx, tc, opts...)
			interop.DoCancelAfterFirstResponse(ctx, tc, opts...)
			interop.DoCustomMetadata(ctx, tc, opts...)
			interop.DoStatusCodeAndMessage(ctx, tc, opts...)
			interop.DoSpecialStatusMessage(ctx, tc, opts...)
		})
	}
	ctx := within(t, soon)
	interop.DoUnimplementedMethod(ctx, cc)
	interop.DoUnimplementedService(ctx, testpb.NewUnimplementedServiceClient(cc))
	if n := s.accepted.Load(); n != 1 {
		t.Errorf("the server saw %d connections, want 1", n)
	}
}
