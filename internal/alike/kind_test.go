package alike_test

import (
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	grpcpool "github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// kind is a way to make what calls are made on.
type kind struct {
	name string
	open func(t *testing.T, target string, opts []grpc.DialOption) client
}

// client is what calls are made on.
type client struct {
	grpc.ClientConnInterface

	close func() error
	pool  *shared.Pool // nil unless it is one
}

const (
	plainName = "plain"
	scaleName = "scale"
	poolName  = "pool"
)

var (
	plain = kind{plainName, channels(grpc.NewClient)}
	ours  = []kind{{scaleName, channels(scale.NewClient)}, {poolName, openPool}}
)

func channels(newClient func(string, ...grpc.DialOption) (*grpc.ClientConn, error)) func(*testing.T, string, []grpc.DialOption) client {
	return func(t *testing.T, target string, opts []grpc.DialOption) client {
		t.Helper()
		cc, err := newClient(target, opts...)
		if err != nil {
			t.Fatal(err)
		}
		return client{ClientConnInterface: cc, close: cc.Close}
	}
}

func openPool(t *testing.T, target string, opts []grpc.DialOption) client {
	t.Helper()
	factory, err := grpcpool.NewFactory(target, insecure.NewCredentials(), grpcpool.WithDialOptions(opts...))
	if err != nil {
		t.Fatal(err)
	}
	pool := shared.New(factory, time.Hour)
	return client{ClientConnInterface: pool, close: pool.Close, pool: pool}
}
