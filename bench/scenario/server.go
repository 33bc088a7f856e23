package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"
)

// limit is how many streams a connection may have on the servers here.
const limit = 100

// server answers EmptyCall after a delay, FullDuplexCall with an empty message for each,
// and StreamingOutputCall with messages of a size without end. Its methods must not be called concurrently.
type server struct {
	testpb.UnimplementedTestServiceServer

	delay    func() time.Duration // nil: none
	opts     []grpc.ServerOption
	address  string
	accepted atomic.Int64

	// Since the latest start; grpc is nil after stop.
	listening time.Time
	grpc      *grpc.Server
	served    chan error
}

func start(ctx context.Context, delay func() time.Duration, opts ...grpc.ServerOption) (*server, error) {
	return startAt(ctx, "127.0.0.1:0", delay, opts...)
}

func startAt(ctx context.Context, address string, delay func() time.Duration, opts ...grpc.ServerOption) (*server, error) {
	s := &server{delay: delay, address: address, opts: append([]grpc.ServerOption{
		grpc.MaxConcurrentStreams(limit),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	}, opts...)}
	return s, s.start(ctx)
}

// start listens and serves, again at the same address.
func (s *server) start(ctx context.Context) error {
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	s.listening = time.Now()
	s.address = lis.Addr().String()
	g := grpc.NewServer(s.opts...)
	testpb.RegisterTestServiceServer(g, s)
	healthpb.RegisterHealthServer(g, health.NewServer())
	s.grpc, s.served = g, make(chan error, 1)
	go func(served chan<- error) { served <- g.Serve(countingListener{lis, &s.accepted}) }(s.served)
	return nil
}

// stop closes the listener and all connections.
func (s *server) stop() {
	if s.grpc == nil {
		return
	}
	s.grpc.Stop()
	s.grpc = nil
	if err := <-s.served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		panic(fmt.Sprintf("serving %s: %v", s.address, err)) // a figure taken on it would be worth nothing
	}
}

func (s *server) target() string { return "passthrough:///" + s.address }

// EmptyCall answers after the delay.
func (s *server) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	if s.delay != nil {
		timer := time.NewTimer(s.delay())
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err() //nolint:wrapcheck // a status
		}
	}
	return &testpb.Empty{}, nil
}

// FullDuplexCall answers each message.
func (*server) FullDuplexCall(stream grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	for {
		_, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err //nolint:wrapcheck // a status
		}
		if err := stream.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
			return err //nolint:wrapcheck // a status
		}
	}
}

// StreamingOutputCall sends messages until the client has gone.
func (*server) StreamingOutputCall(r *testpb.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	body := make([]byte, r.GetResponseParameters()[0].GetSize())
	message := &testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: body}}
	for {
		if err := stream.Send(message); err != nil {
			return err //nolint:wrapcheck // a status
		}
	}
}

type countingListener struct {
	net.Listener

	n *atomic.Int64
}

// Accept counts.
func (l countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return conn, err //nolint:wrapcheck // a listener's errors are compared by grpc-go
}

func always(d time.Duration) func() time.Duration { return func() time.Duration { return d } }
