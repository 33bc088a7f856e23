package shared

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

var errWild = errors.New("a bug of an interceptor")

// wildCall is an interceptor that does what those of programs do: it makes the call
// again, also while the first still runs, answers by itself, drops the options, or panics.
// The pool's tests are spared: a panic there ends the process.
func wildCall(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	choice := rand.IntN(20)
	if method == healthpb.Health_Check_FullMethodName {
		choice = -1
	}
	switch choice {
	case 0:
		panic(errWild)
	case 1:
		return nil
	case 2:
		return errWild
	case 3:
		opts = nil
	case 4:
		_ = invoker(ctx, method, request, reply, cc, opts...)
	case 5, 6:
		return retry(ctx, func(ctx context.Context) error { return invoker(ctx, method, request, reply, cc, opts...) })
	case 7:
		return status.Error(codes.PermissionDenied, "not you")
	}
	return invoker(ctx, method, request, reply, cc, opts...)
}

// retry makes up to four attempts, each with a time of its own.
func retry(ctx context.Context, attempt func(context.Context) error) (err error) {
	for range 4 {
		try, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		err = attempt(try)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(rand.N(10 * time.Millisecond))
	}
	return err
}

// wildStream is wildCall for streams. A try that it gives up may end long after the
// caller has another, or never.
func wildStream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	open := func(ctx context.Context) (grpc.ClientStream, error) { return streamer(ctx, desc, cc, method, opts...) }
	switch rand.IntN(12) {
	case 0:
		panic(errWild)
	case 1:
		return wild{}, nil
	case 2:
		return nil, errWild
	case 3:
		opts = nil
	case 4, 5: // it gives up a try, at the latest when the caller has another
		try, cancel := context.WithTimeout(ctx, rand.N(200*time.Millisecond))
		if _, err := open(try); err != nil {
			cancel()
			return nil, err
		}
		context.AfterFunc(try, cancel)
	case 6:
		s, err := open(ctx)
		if err != nil {
			return nil, err
		}
		return wild{s}, nil
	case 7:
		return openTwo(ctx, open)
	case 8: // without its options, and wrapped
		opts = nil
		s, err := open(ctx)
		if err != nil {
			return nil, err
		}
		return wild{s}, nil
	}
	return open(ctx)
}

// openTwo opens two streams at once, and returns the one that is there last.
func openTwo(ctx context.Context, open func(context.Context) (grpc.ClientStream, error)) (s grpc.ClientStream, err error) {
	type opened struct {
		s   grpc.ClientStream
		err error
	}
	both := make(chan opened)
	for range 2 {
		go func() {
			s, err := open(ctx)
			both <- opened{s, err}
		}()
	}
	for range 2 {
		if one := <-both; one.err == nil {
			s = one.s
		} else {
			err = one.err
		}
	}
	if s == nil {
		return nil, err
	}
	return s, nil
}

// wild is a stream of an interceptor's own. Without one of gRPC's in it, it is over
// at once.
type wild struct{ grpc.ClientStream }

func (w wild) SendMsg(m any) error {
	if w.ClientStream == nil {
		return io.EOF
	}
	return w.ClientStream.SendMsg(m)
}

func (w wild) RecvMsg(m any) error {
	switch {
	case w.ClientStream == nil:
		return io.EOF
	case rand.IntN(5) == 0:
		panic(errWild)
	}
	return w.ClientStream.RecvMsg(m)
}

func (w wild) CloseSend() error {
	if w.ClientStream == nil {
		return nil
	}
	return w.ClientStream.CloseSend()
}
