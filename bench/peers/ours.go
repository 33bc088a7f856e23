package peers

import (
	"fmt"
	"slices"

	"google.golang.org/grpc"

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
	f, err := NewFactory(c)
	if err != nil {
		return nil, err
	}
	return shared.New(f, 0, shared.WithDrainTimeout(0)), nil
}

// NewFactory is the factory of such a pool.
func NewFactory(c Config) (*grpcpool.Factory, error) {
	opts := append([]grpc.DialOption{scale.WithMaxConnections(c.Size)}, c.Options...)
	f, err := grpcpool.NewFactory(c.Target, c.creds(), grpcpool.WithDialOptions(opts...))
	if err != nil {
		return nil, fmt.Errorf("peers: %w", err)
	}
	return f, nil
}

func newOneFactory(c Config) (Client, error) {
	if c.Factory == nil {
		return newPool(c)
	}
	return pool{shared.New(c.Factory, 0, shared.WithDrainTimeout(0))}, nil
}

func (p pool) Close() { _ = p.Pool.Close() } // says how many leases were still out

func newScale(c Config) (Client, error) { return newScaleWith(c) }

func newUnsupervised(c Config) (Client, error) { return newScaleWith(c, scale.WithUnsupervised()) }

func newScaleWith(c Config, opts ...grpc.DialOption) (Client, error) {
	cc, err := scale.NewClient(c.Target, slices.Concat([]grpc.DialOption{
		grpc.WithTransportCredentials(c.creds()), scale.WithMaxConnections(c.Size),
	}, opts, c.Options)...)
	if err != nil {
		return nil, fmt.Errorf("peers: %w", err)
	}
	return channel{cc}, nil
}
