package fleet_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/emptypb"

	grpcpool "github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// kind is a way to make a client.
type kind struct {
	name string
	open func(opts []grpc.DialOption) (cc grpc.ClientConnInterface, closeIt func() error, err error)
}

const target = "passthrough:///memory"

var (
	ours   = kind{"scale", channels(scale.NewClient)}
	plain  = kind{"plain", channels(grpc.NewClient)}
	pooled = kind{"pool", openPool}

	keptAlive = plainWith("keepalive 10s", grpc.WithKeepaliveParams(keepalive.ClientParameters{
		Time: 10 * time.Second, Timeout: time.Second, PermitWithoutStream: true,
	}))
)

// plainWith is a plain channel with a setting that a program may choose.
func plainWith(name string, opt grpc.DialOption) kind {
	return kind{"plain, " + name, channels(func(target string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
		return grpc.NewClient(target, append(opts, opt)...)
	})}
}

// fixedBackoff is a plain channel that dials again d after a failure, give or take a fifth.
func fixedBackoff(d time.Duration) kind {
	return plainWith(fmt.Sprintf("backoff %v", d), grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: d, Multiplier: 1, Jitter: 0.2, MaxDelay: d},
		MinConnectTimeout: 20 * time.Second, // grpc-go's own
	}))
}

// sameDials is the backoff that makes as many dials as m shows in an outage, which lasts up
// to a fifth longer.
func sameDials(m *measure, outage time.Duration) time.Duration {
	const first, half = 1, .5 // the last one comes half a backoff after the end
	return time.Duration(1.1 * float64(outage) / max(m.meanDials()-first-half, 1)).Round(time.Millisecond)
}

func channels(newClient func(string, ...grpc.DialOption) (*grpc.ClientConn, error)) func([]grpc.DialOption) (grpc.ClientConnInterface, func() error, error) {
	return func(opts []grpc.DialOption) (grpc.ClientConnInterface, func() error, error) {
		cc, err := newClient(target, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		if err != nil {
			return nil, nil, err
		}
		return cc, cc.Close, nil
	}
}

func openPool(opts []grpc.DialOption) (grpc.ClientConnInterface, func() error, error) {
	factory, err := grpcpool.NewFactory(target, insecure.NewCredentials(), grpcpool.WithDialOptions(opts...))
	if err != nil {
		return nil, nil, err
	}
	pool := shared.New(factory, time.Hour, shared.WithWaitForReady())
	return pool, pool.Close, nil
}

// client is one client of a fleet.
type client struct {
	address address
	cc      grpc.ClientConnInterface
	close   func() error
	dials   atomic.Int64
	rng     *rand.Rand // of the goroutine that calls

	mu   sync.Mutex // guards what follows
	lost time.Time  // since when it has no connection; zero: it has one
	back []time.Duration
}

// newClient makes a client, which is not connected.
func newClient(tb testing.TB, k kind, a address, seed uint64) *client {
	tb.Helper()
	c := &client{address: a, rng: rand.New(rand.NewPCG(*seedFlag, seed))}
	var err error
	c.cc, c.close, err = k.open([]grpc.DialOption{grpc.WithContextDialer(c.dial), grpc.WithIdleTimeout(0)})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// lose has the client's next good call end an absence.
func (c *client) lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost.IsZero() {
		c.lost = time.Now()
	}
}

// call makes a call that waits until there is a connection, again and again until it is
// good or ctx ends.
func (c *client) call(ctx context.Context) error {
	for {
		err := c.cc.Invoke(ctx, "/fleet.Fleet/Call", new(emptypb.Empty), new(emptypb.Empty), grpc.WaitForReady(true))
		if err == nil {
			c.noteGood()
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

func (c *client) noteGood() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.lost.IsZero() {
		c.back = append(c.back, time.Since(c.lost))
		c.lost = time.Time{}
	}
}

// absences returns how long each absence was.
func (c *client) absences() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.back
}
