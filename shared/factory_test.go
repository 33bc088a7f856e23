package shared_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// fakeFactory makes channels that never connect, at once, and finds them good,
// unless the script says otherwise.
type fakeFactory struct {
	mu      sync.Mutex // guards what follows
	onDial  func(ctx context.Context) error
	onTest  func(ctx context.Context, conn *grpc.ClientConn) error
	dials   []time.Time // when each began
	dialing int
	most    int // dials under way at the same time, at most
	tests   int
	conns   []*grpc.ClientConn
}

var errScripted = errors.New("scripted failure")

func (f *fakeFactory) NewConnection(ctx context.Context) (*grpc.ClientConn, error) {
	f.mu.Lock()
	f.dials = append(f.dials, time.Now())
	f.dialing++
	f.most = max(f.most, f.dialing)
	onDial := f.onDial
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.dialing--
	}()
	if onDial != nil {
		if err := onDial(ctx); err != nil {
			return nil, err
		}
	}
	conn, err := grpc.NewClient("passthrough:///nowhere", grpc.WithTransportCredentials(insecure.NewCredentials()))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = append(f.conns, conn)
	return conn, err
}

func (f *fakeFactory) ConnectionOk(ctx context.Context, conn *grpc.ClientConn) error {
	f.mu.Lock()
	f.tests++
	onTest := f.onTest
	f.mu.Unlock()
	if onTest != nil {
		return onTest(ctx, conn)
	}
	return nil
}

// script sets what dials and tests do from here on; nil is success.
func (f *fakeFactory) script(onDial func(context.Context) error, onTest func(context.Context, *grpc.ClientConn) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onDial, f.onTest = onDial, onTest
}

func (f *fakeFactory) seen() (dials, tests int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.dials), f.tests
}

// wantOneDial checks that the factory has been asked for one dial and so many
// tests since it was made.
func (f *fakeFactory) wantOneDial(t *testing.T, tests int) {
	t.Helper()
	if d, n := f.seen(); d != 1 || n != tests {
		t.Errorf("the factory has been asked for %d dials and %d tests, want 1 and %d", d, n, tests)
	}
}

func failDial(context.Context) error { return errScripted }

// refuseDial fails without having reached the server, and says so.
func refuseDial(context.Context) error { return &refusedError{errScripted} }

type refusedError struct{ error }

func (e *refusedError) Unwrap() error     { return e.error }
func (*refusedError) ReachedServer() bool { return false }

func failTest(context.Context, *grpc.ClientConn) error { return errScripted }

// hangTest answers only when it is given up.
func hangTest(ctx context.Context, _ *grpc.ClientConn) error {
	<-ctx.Done()
	return ctx.Err()
}

// newPool makes a pool that is closed when the test, or its bubble, ends.
func newPool(t testing.TB, f grpcpool.ConnectionFactory, idle time.Duration, opts ...shared.Option) *shared.Pool {
	t.Helper()
	p := shared.New(f, idle, opts...)
	t.Cleanup(func() { p.Close() })
	return p
}

// inMemory makes a pool over a real channel to a real server in memory.
func inMemory(t testing.TB, idle time.Duration, opts ...shared.Option) (*shared.Pool, *grpcpooltest.Server) {
	t.Helper()
	return inMemoryOver(t, nil, idle, opts...)
}

// unwatched is the dial option of a channel that does not watch its connections: the pool
// has to find out everything by itself.
func unwatched() []grpc.DialOption { return []grpc.DialOption{scale.WithProbeInterval(0)} }

// inMemoryOver is inMemory with dial options.
func inMemoryOver(t testing.TB, dial []grpc.DialOption, idle time.Duration, opts ...shared.Option) (*shared.Pool, *grpcpooltest.Server) {
	t.Helper()
	server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
	f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(),
		grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)), grpcpool.WithDialOptions(dial...))
	if err != nil {
		t.Fatal(err)
	}
	return newPool(t, f, idle, opts...), server
}

func get(t testing.TB, p *shared.Pool) grpcpool.PoolClientConn {
	t.Helper()
	lease, err := p.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return lease
}

// borrow is a Get and a Return.
func borrow(t testing.TB, p *shared.Pool) {
	t.Helper()
	get(t, p).Return()
}

func closed(conn *grpc.ClientConn) bool { return conn.GetState() == connectivity.Shutdown }
