package peers

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
)

type channel struct{ *grpc.ClientConn }

func (c channel) Close() { _ = c.ClientConn.Close() } // fails only when it is closed already

func newPlain(c Config) (Client, error) { return newChannel(c.Target, tuned(c)) }

func newDefaults(c Config) (Client, error) { return newDefaultsWith(c) }

func newDefaultsWith(c Config, opts ...grpc.DialOption) (Client, error) {
	return newChannel(c.Target, slices.Concat([]grpc.DialOption{grpc.WithTransportCredentials(c.creds())}, opts, c.Options))
}

func newKeepalive(c Config) (Client, error) {
	return newDefaultsWith(c, grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, PermitWithoutStream: true}))
}

// fixed makes channels with a backoff that does not grow.
func fixed(pause time.Duration) func(Config) (Client, error) {
	return func(c Config) (Client, error) {
		return newDefaultsWith(c, grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: pause, Multiplier: 1, Jitter: 0.2, MaxDelay: pause},
			MinConnectTimeout: 20 * time.Second, // the default
		}))
	}
}

func newChannel(target string, opts []grpc.DialOption) (Client, error) {
	cc, err := grpc.NewClient(target, opts...)
	if err != nil {
		return nil, fmt.Errorf("peers: %w", err)
	}
	return channel{cc}, nil
}

// several are plain channels to one target.
type several []*counted

type counted struct {
	*grpc.ClientConn

	calls atomic.Int64 // under way; kept by leastLoaded only
}

func newSeveral(c Config) (several, error) {
	channels := make(several, 0, c.Size)
	for range c.Size {
		cc, err := grpc.NewClient(c.Target, tuned(c)...)
		if err != nil {
			channels.Close()
			return nil, fmt.Errorf("peers: %w", err)
		}
		channels = append(channels, &counted{ClientConn: cc})
	}
	return channels, nil
}

// Close closes them all.
func (s several) Close() {
	for _, c := range s {
		_ = c.Close()
	}
}

type roundRobin struct {
	several

	next atomic.Uint64
}

func newRoundRobin(c Config) (Client, error) {
	channels, err := newSeveral(c)
	if err != nil {
		return nil, err
	}
	return &roundRobin{several: channels}, nil
}

func (r *roundRobin) pick() *grpc.ClientConn {
	return r.several[r.next.Add(1)%uint64(len(r.several))].ClientConn
}

func (r *roundRobin) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return r.pick().Invoke(ctx, method, args, reply, opts...)
}

func (r *roundRobin) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return r.pick().NewStream(ctx, desc, method, opts...)
}

type leastLoaded struct{ several }

func newLeastLoaded(c Config) (Client, error) {
	channels, err := newSeveral(c)
	if err != nil {
		return nil, err
	}
	return leastLoaded{channels}, nil
}

func (l leastLoaded) pick() *counted {
	least := l.several[0]
	for _, c := range l.several[1:] {
		if c.calls.Load() < least.calls.Load() {
			least = c
		}
	}
	least.calls.Add(1)
	return least
}

func (l leastLoaded) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	c := l.pick()
	defer c.calls.Add(-1)
	return c.Invoke(ctx, method, args, reply, opts...)
}

func (l leastLoaded) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	c := l.pick()
	s, err := c.NewStream(ctx, desc, method, append(slices.Clip(opts), grpc.OnFinish(func(error) { c.calls.Add(-1) }))...)
	return s, err
}
