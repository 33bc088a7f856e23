package peers

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/GoogleCloudPlatform/grpc-gcp-go/grpcgcp"
	gcppb "github.com/GoogleCloudPlatform/grpc-gcp-go/grpcgcp/grpc_gcp"
	commonspool "github.com/jolestar/go-commons-pool/v2"
	"google.golang.org/api/option"
	apigrpc "google.golang.org/api/transport/grpc"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
)

// newGCP makes a channel with the LB policy of grpc-gcp. Its interceptors are for
// affinity, which is not used here.
func newGCP(c Config) (Client, error) {
	config, err := protojson.Marshal(&gcppb.ApiConfig{ChannelPool: &gcppb.ChannelPoolConfig{
		MinSize:                          1,
		MaxSize:                          uint32(c.Size), //nolint:gosec // ten or so
		MaxConcurrentStreamsLowWatermark: 100,
		FallbackToReady:                  true,
		UnresponsiveDetectionMs:          1000,
		UnresponsiveCalls:                3,
	}})
	if err != nil {
		return nil, fmt.Errorf("peers: grpcgcp's config: %w", err)
	}
	service := fmt.Sprintf(`{"loadBalancingConfig": [{%q: %s}]}`, grpcgcp.Name, config)
	return newChannel(c.Target, append(tuned(c), grpc.WithDefaultServiceConfig(service)))
}

type apiPool struct{ apigrpc.ConnPool }

func newAPI(c Config) (Client, error) {
	dial := tuned(c)
	opts := make([]option.ClientOption, 0, 4+len(dial))
	opts = append(opts, option.WithEndpoint(c.Target), option.WithoutAuthentication(), option.WithGRPCConnectionPool(c.Size),
		option.WithTelemetryDisabled())
	for _, o := range dial {
		opts = append(opts, option.WithGRPCDialOption(o))
	}
	p, err := apigrpc.DialPool(context.Background(), opts...)
	if err != nil {
		return nil, fmt.Errorf("peers: google.golang.org/api: %w", err)
	}
	return apiPool{p}, nil
}

func (p apiPool) Close() { _ = p.ConnPool.Close() }

// ExclusiveChannels is how many channels the exclusive peer lends.
const ExclusiveChannels = 100

// Borrower lends channels to one borrower at a time.
type Borrower struct{ pool *commonspool.ObjectPool }

// NewBorrower is the pool behind the peer exclusive, for what is not an RPC.
func NewBorrower(c Config) *Borrower {
	config := commonspool.NewDefaultPoolConfig()
	config.MaxTotal, config.MaxIdle = ExclusiveChannels, ExclusiveChannels
	make1 := func(context.Context) (any, error) { return grpc.NewClient(c.Target, tuned(c)...) }
	closeIt := func(_ context.Context, o *commonspool.PooledObject) error {
		cc, ok := o.Object.(*grpc.ClientConn)
		if !ok {
			return errors.New("peers: what is lent is no channel")
		}
		return cc.Close()
	}
	return &Borrower{commonspool.NewObjectPool(context.Background(), commonspool.NewPooledObjectFactory(make1, closeIt, nil, nil, nil), config)}
}

func newExclusive(c Config) (Client, error) { return NewBorrower(c), nil }

// Borrow waits for a channel. The func gives it back.
func (b *Borrower) Borrow(ctx context.Context) (*grpc.ClientConn, func(), error) {
	o, err := b.pool.BorrowObject(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("peers: borrowing: %w", err)
	}
	cc, ok := o.(*grpc.ClientConn)
	if !ok {
		return nil, nil, errors.New("peers: what was lent is no channel")
	}
	return cc, func() { _ = b.pool.ReturnObject(context.WithoutCancel(ctx), o) }, nil
}

// Invoke borrows a channel for a unary call.
func (b *Borrower) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	cc, giveBack, err := b.Borrow(ctx)
	if err != nil {
		return err
	}
	defer giveBack()
	return cc.Invoke(ctx, method, args, reply, opts...)
}

// NewStream borrows a channel until the stream has ended.
func (b *Borrower) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	cc, giveBack, err := b.Borrow(ctx)
	if err != nil {
		return nil, err
	}
	return cc.NewStream(ctx, desc, method, append(slices.Clip(opts), grpc.OnFinish(func(error) { giveBack() }))...)
}

// Close closes the channels that are not lent.
func (b *Borrower) Close() { b.pool.Close(context.Background()) }
