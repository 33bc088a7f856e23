package grpcpool_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// verbose is a server whose calls fail with details of a size.
func verbose(t *testing.T, size int) *grpcpooltest.Server {
	t.Helper()
	st, err := status.New(codes.FailedPrecondition, "see the details").WithDetails(&testpb.Payload{Body: bytes.Repeat([]byte{7}, size)})
	if err != nil {
		t.Fatal(err)
	}
	return grpcpooltest.NewServer(t, grpcpooltest.WithEmptyCall(func(context.Context) error { return st.Err() }))
}

// details is the size of the details that come with a call's status.
func details(ctx context.Context, cc grpc.ClientConnInterface) (size int, err error) {
	_, err = testpb.NewTestServiceClient(cc).EmptyCall(ctx, &testpb.Empty{})
	for _, d := range status.Convert(err).Details() {
		if p, ok := d.(*testpb.Payload); ok {
			size += len(p.GetBody())
		}
	}
	return size, err
}

func TestStatusDetailsThatArriveOnAPlainChannelArriveOnOurs(t *testing.T) {
	for _, size := range []int{60_000, 100_000, 500_000} {
		server := verbose(t, size)
		plain, err := grpc.NewClient(server.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer plain.Close()
		scaled, err := scale.NewClient(server.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer scaled.Close()
		f := plainFactory(t, server.Target())
		made, err := f.NewConnection(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		defer made.Close()
		pool := shared.New(f, time.Minute)
		defer pool.Close()
		for name, cc := range map[string]grpc.ClientConnInterface{"plain": plain, "scale": scaled, "factory": made, "pool": pool} {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				if got, err := details(testContext(t), cc); got != size || status.Code(err) != codes.FailedPrecondition {
					t.Errorf("details of %d bytes: %.200v", got, err)
				}
			})
		}
	}
}

func TestAProgramsOwnLimitOfHeadersHolds(t *testing.T) {
	for _, tt := range []struct {
		limit uint32
		size  int
		comes bool
	}{{8 << 10, 4 << 10, true}, {8 << 10, 16 << 10, false}, {8 << 20, 3 << 20, true}} {
		f := plainFactory(t, verbose(t, tt.size).Target(), grpcpool.WithDialOptions(grpc.WithMaxHeaderListSize(tt.limit)))
		conn, err := f.NewConnection(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got, err := details(testContext(t), conn); (got == tt.size) != tt.comes {
			t.Errorf("limit %d, details %d: %d came, %.200v", tt.limit, tt.size, got, err)
		}
	}
}

func TestWhatAServerSaysIsOneLineWithoutControlCharacters(t *testing.T) {
	server := grpcpooltest.NewServer(t, grpcpooltest.WithServerOptions(
		grpc.UnaryInterceptor(func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
			return nil, status.Error(codes.Unavailable, "one\ntwo\x1b[2J\r\u202e\u009b")
		}),
	))
	_, err := plainFactory(t, server.Target(), grpcpool.WithHealthCheck("")).NewConnection(testContext(t))
	if err == nil || strings.ContainsAny(err.Error(), "\n\r\x1b\u202e\u009b") || !strings.Contains(err.Error(), `one two\u001b[2J \u202e\u009b`) {
		t.Errorf("%q", err)
	}
}
