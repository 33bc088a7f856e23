package scale_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/scale"
)

// server is a gRPC server that counts.
type server struct {
	testpb.UnimplementedTestServiceServer

	*grpc.Server

	addr     string
	accepted atomic.Int64         // connections, ever
	calls    atomic.Int64         // RPCs begun, ever
	now, max atomic.Int64         // RPCs that run, and the most at once
	gate     chan struct{}        // nil, or what an RPC waits for
	delay    func() time.Duration // how long an RPC takes
}

// serverConfig says how a server behaves. Its zero value answers at once and
// allows any number of streams.
type serverConfig struct {
	listener net.Listener // default: a port on the loopback
	limit    uint32       // 0: none
	delay    time.Duration
	gate     chan struct{}
	options  []grpc.ServerOption
	register func(*grpc.Server)
}

// startServer runs a server until the test ends.
func startServer(tb testing.TB, cfg serverConfig) *server {
	tb.Helper()
	if cfg.listener == nil {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		cfg.listener = l
	}
	s := &server{addr: cfg.listener.Addr().String(), gate: cfg.gate, delay: func() time.Duration { return cfg.delay }}
	opts := cfg.options
	if cfg.limit > 0 {
		opts = append(opts, grpc.MaxConcurrentStreams(cfg.limit))
	}
	s.Server = grpc.NewServer(opts...)
	testpb.RegisterTestServiceServer(s.Server, s)
	if cfg.register != nil {
		cfg.register(s.Server)
	}
	var served sync.WaitGroup
	served.Go(func() { _ = s.Serve(&countingListener{cfg.listener, &s.accepted}) })
	tb.Cleanup(func() {
		s.Stop()
		served.Wait()
	})
	return s
}

type countingListener struct {
	net.Listener

	accepted *atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return c, err
}

func (s *server) begin() func() {
	s.calls.Add(1)
	n := s.now.Add(1)
	for m := s.max.Load(); n > m && !s.max.CompareAndSwap(m, n); m = s.max.Load() {
	}
	return func() { s.now.Add(-1) }
}

func (s *server) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	defer s.begin()()
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if d := s.delay(); d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &testpb.Empty{}, nil
}

func (s *server) UnaryCall(_ context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	defer s.begin()()
	return &testpb.SimpleResponse{Payload: r.GetPayload()}, nil
}

// FullDuplexCall holds its stream until the client has sent all.
func (s *server) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	defer s.begin()()
	for {
		if _, err := stream.Recv(); err != nil {
			return nil
		}
		if err := stream.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
}

// channel is a channel under test, with what it shows.
type channel struct {
	*grpc.ClientConn

	observer *scale.Observer
	stub     testpb.TestServiceClient
}

// newChannel makes a channel to target, without TLS unless opts say otherwise, and
// closes it when the test ends.
func newChannel(tb testing.TB, target string, opts ...grpc.DialOption) *channel {
	tb.Helper()
	observer := new(scale.Observer)
	all := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), scale.WithObserver(observer)}
	cc, err := scale.NewClient(target, append(all, opts...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = cc.Close() })
	return &channel{cc, observer, testpb.NewTestServiceClient(cc)}
}

// connections counts the READY connections of all subchannels.
func (c *channel) connections() (n int) {
	for _, s := range c.observer.Snapshot().Subchannels {
		n += len(s.Connections)
	}
	return n
}

func (c *channel) inFlight() (n int) {
	for _, s := range c.observer.Snapshot().Subchannels {
		for _, conn := range s.Connections {
			n += conn.InFlight
		}
	}
	return n
}

func (c *channel) waiters() (n int) {
	for _, s := range c.observer.Snapshot().Subchannels {
		n += s.Waiters
	}
	return n
}

// testTimeout ends what would otherwise hang.
const testTimeout = 30 * time.Second

func testContext(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	tb.Cleanup(cancel)
	return ctx
}

// eventually waits until ok, which it polls: for what no event tells.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(testTimeout)
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("never happened: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// settled fails the test if streams or calls that wait stay behind.
func (c *channel) settled(tb testing.TB) {
	tb.Helper()
	eventually(tb, "no stream and no call that waits is left", func() bool { return c.inFlight() == 0 && c.waiters() == 0 })
}

// hammer has callers make rounds calls each and returns the errors.
func hammer(ctx context.Context, stub testpb.TestServiceClient, callers, rounds int, opts ...grpc.CallOption) []error {
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range rounds {
				if _, err := stub.EmptyCall(ctx, &testpb.Empty{}, opts...); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return errs
}

// mustHammer is hammer without errors.
func mustHammer(tb testing.TB, stub testpb.TestServiceClient, callers, rounds int, opts ...grpc.CallOption) {
	tb.Helper()
	if errs := hammer(testContext(tb), stub, callers, rounds, opts...); len(errs) > 0 {
		tb.Fatalf("%d of %d calls failed, first: %v", len(errs), callers*rounds, errs[0])
	}
}

// hold starts calls that do not end before the server's gate is closed, and waits
// until the server has as many calls more.
func hold(ctx context.Context, tb testing.TB, s *server, stub testpb.TestServiceClient, calls int) *sync.WaitGroup {
	tb.Helper()
	var wg sync.WaitGroup
	before := s.calls.Load()
	for range calls {
		wg.Go(func() {
			if _, err := stub.EmptyCall(ctx, &testpb.Empty{}); err != nil {
				tb.Error(err)
			}
		})
	}
	eventually(tb, fmt.Sprintf("the server has %d calls more", calls), func() bool { return s.calls.Load() >= before+int64(calls) })
	return &wg
}

func containsAll(s string, parts ...string) bool {
	for _, part := range parts {
		if !strings.Contains(s, part) {
			return false
		}
	}
	return true
}
