//go:build linux

package faults

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/resolver"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/integration/internal/realserver"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// client is what a scenario tests, as a program would make it: nothing is set but
// what watches it.
type client interface {
	// do makes a call on the channel. got is told when the channel was had, which
	// for a pool is the lease.
	do(ctx context.Context, got func(), rpc func(*grpc.ClientConn) error) error

	// inside shows the channel that calls are given now.
	inside() scale.Channel

	// leases counts those that are out. A channel has none.
	leases() int

	// replaced counts the channels that a pool gave up for others.
	replaced() int

	close() error
}

// newClient makes a client of the servers at addrs.
func newClient(tb testing.TB, kind string, certs *grpcpooltest.Certs, addrs []string, watch ...grpc.DialOption) client {
	tb.Helper()
	target := addrs[0]
	if len(addrs) > 1 {
		target = listScheme + ":///" + serversName
		watch = append(watch, grpc.WithResolvers(list(addrs)))
	}
	var c client
	var err error
	switch kind {
	case ClientPool:
		c, err = newPoolClient(certs, target, watch)
	case ClientPlain:
		c, err = newPlainClient(certs, target, watch)
	default:
		c, err = newScaleClient(certs, target, watch)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// scaleClient is a channel of scale.NewClient.
type scaleClient struct {
	conn     *grpc.ClientConn
	observer *scale.Observer
}

func newScaleClient(certs *grpcpooltest.Certs, target string, watch []grpc.DialOption) (client, error) {
	tls, err := realserver.ClientTLS(certs)
	if err != nil {
		return nil, err
	}
	c := &scaleClient{observer: new(scale.Observer)}
	c.conn, err = scale.NewClient(target, append(watch, grpc.WithTransportCredentials(credentials.NewTLS(tls)), scale.WithObserver(c.observer))...)
	if err != nil {
		return nil, fmt.Errorf("faults: %w", err)
	}
	return c, nil
}

func (c *scaleClient) do(_ context.Context, got func(), rpc func(*grpc.ClientConn) error) error {
	got()
	return rpc(c.conn)
}

func (c *scaleClient) inside() scale.Channel { return c.observer.Snapshot() }
func (c *scaleClient) leases() int           { return 0 }
func (c *scaleClient) replaced() int         { return 0 }
func (c *scaleClient) close() error          { return c.conn.Close() }

// plainClient is a channel of grpc.NewClient, as it comes.
type plainClient struct {
	conn *grpc.ClientConn
}

func newPlainClient(certs *grpcpooltest.Certs, target string, watch []grpc.DialOption) (client, error) {
	tls, err := realserver.ClientTLS(certs)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(target, append(watch, grpc.WithTransportCredentials(credentials.NewTLS(tls)))...)
	if err != nil {
		return nil, fmt.Errorf("faults: %w", err)
	}
	return plainClient{conn}, nil
}

func (c plainClient) do(_ context.Context, got func(), rpc func(*grpc.ClientConn) error) error {
	got()
	return rpc(c.conn)
}

func (plainClient) inside() scale.Channel { return scale.Channel{} } // nobody can look into it
func (plainClient) leases() int           { return 0 }
func (plainClient) replaced() int         { return 0 }
func (c plainClient) close() error        { return c.conn.Close() }

// poolClient is a pool over a factory with mutual TLS. Each call has a lease of its
// own.
type poolClient struct {
	pool *shared.Pool
}

func newPoolClient(certs *grpcpooltest.Certs, target string, watch []grpc.DialOption) (client, error) {
	factory, err := grpcpool.NewMutualTLSFactory(certs.CA.PEM, certs.Client.CertPEM, certs.Client.KeyPEM, target,
		30*time.Second, 10*time.Second, nil, grpcpool.WithDialOptions(watch...))
	if err != nil {
		return nil, fmt.Errorf("faults: %w", err)
	}
	return &poolClient{shared.New(factory, time.Minute)}, nil
}

func (c *poolClient) do(ctx context.Context, got func(), rpc func(*grpc.ClientConn) error) error {
	lease, err := c.pool.Get(ctx)
	if err != nil {
		return err
	}
	defer lease.Return()
	got()
	return rpc(lease.Connection())
}

func (c *poolClient) inside() scale.Channel { return c.pool.Stats().Current }
func (c *poolClient) leases() int           { return c.pool.Stats().Leases }
func (c *poolClient) replaced() int         { return int(c.pool.Stats().Replaced) } //nolint:gosec // a count
func (c *poolClient) close() error          { return c.pool.Close() }

// The name of several servers together.
const (
	listScheme  = "faults"
	serversName = "servers"
)

// list is a resolver for servers whose addresses are known.
type list []string

func (list) Scheme() string { return listScheme }

func (l list) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	var state resolver.State
	for _, addr := range l {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: addr}}})
	}
	return l, cc.UpdateState(state)
}

func (list) ResolveNow(resolver.ResolveNowOptions) {}
func (list) Close()                                {}

// eventCounts counts the events of a client's channels by kind.
type eventCounts struct {
	mu   sync.Mutex // guards what follows
	n    map[scale.EventKind]int
	last time.Time // when a connection last ended before its time

	dials []time.Time // when dials ended, well or not
}

func (c *eventCounts) note(e scale.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = make(map[scale.EventKind]int)
	}
	c.n[e.Kind]++
	if e.Kind == scale.EventEjected || e.Kind == scale.EventLost {
		c.last = e.Time
	}
	if e.Kind == scale.EventDialled || e.Kind == scale.EventDialFailed {
		c.dials = append(c.dials, e.Time)
	}
}

// dialsSince counts the dials that have ended since then.
func (c *eventCounts) dialsSince(from time.Time) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, at := range c.dials {
		if at.After(from) {
			n++
		}
	}
	return n
}

func (c *eventCounts) lastEnd() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

func (c *eventCounts) of(kinds ...scale.EventKind) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, kind := range kinds {
		n += c.n[kind]
	}
	return n
}
