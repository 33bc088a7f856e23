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
	open func(t *testing.T, p plan) client
}

// plan is how to make it.
type plan struct {
	target string
	dial   []grpc.DialOption
	idle   time.Duration     // after which an unused channel is closed; 0: never
	ping   grpcpool.PingFunc // of the pool; nil: its own
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
	ours  = []kind{{scaleName, channels(scale.NewClient)}, {poolName, pools()}}
)

func channels(newClient func(string, ...grpc.DialOption) (*grpc.ClientConn, error)) func(*testing.T, plan) client {
	return func(t *testing.T, p plan) client {
		t.Helper()
		cc, err := newClient(p.target, append([]grpc.DialOption{grpc.WithIdleTimeout(p.idle)}, p.dial...)...)
		if err != nil {
			t.Fatal(err)
		}
		return client{ClientConnInterface: cc, close: cc.Close}
	}
}

func pools(more ...shared.Option) func(*testing.T, plan) client {
	return func(t *testing.T, p plan) client {
		t.Helper()
		dial := append([]grpc.DialOption{grpc.WithIdleTimeout(0)}, p.dial...)
		opts := []grpcpool.FactoryOption{grpcpool.WithDialOptions(dial...)}
		if p.ping != nil {
			opts = append(opts, grpcpool.WithPing(p.ping))
		}
		factory, err := grpcpool.NewFactory(p.target, insecure.NewCredentials(), opts...)
		if err != nil {
			t.Fatal(err)
		}
		pool := shared.New(factory, p.idle, more...)
		return client{ClientConnInterface: pool, close: pool.Close, pool: pool}
	}
}
