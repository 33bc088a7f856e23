package peers

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

type pool struct{ *shared.Pool }

func newPool(c Config) (Client, error) {
	p, err := NewSharedPool(c)
	if err != nil {
		return nil, err
	}
	return pool{p}, nil
}

// NewSharedPool is the pool behind the peer of that name, for what is not an RPC.
func NewSharedPool(c Config) (*shared.Pool, error) {
	opts := append([]grpc.DialOption{scale.WithMaxConnections(c.Size)}, c.Options...)
	f, err := grpcpool.NewFactory(c.Target, insecure.NewCredentials(), grpcpool.WithDialOptions(opts...))
	if err != nil {
		return nil, err
	}
	return shared.New(f, 0, shared.WithDrainTimeout(0)), nil
}

func (p pool) Close() { _ = p.Pool.Close() } // says how many leases were still out

func newScale(c Config) (Client, error) {
	cc, err := scale.NewClient(c.Target, append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), scale.WithMaxConnections(c.Size),
	}, c.Options...)...)
	if err != nil {
		return nil, err
	}
	return channel{cc}, nil
}
