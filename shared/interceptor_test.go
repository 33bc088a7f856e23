package shared_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/shared"
)

// opener opens a stream as gRPC would without the interceptor.
type opener func(context.Context) (grpc.ClientStream, error)

// intercepted is a pool whose channels' streams are opened by open. pass opens one
// with the call's options, bare without them.
func intercepted(t *testing.T, open func(ctx context.Context, pass, bare opener) (grpc.ClientStream, error), opts ...grpc.DialOption) *shared.Pool {
	t.Helper()
	p, _ := inMemoryWith(t, nil, grpcpool.WithDialOptions(opts...), grpcpool.WithDialOptions(grpc.WithStreamInterceptor(
		func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(ctx,
				func(ctx context.Context) (grpc.ClientStream, error) { return streamer(ctx, desc, cc, method, opts...) },
				func(ctx context.Context) (grpc.ClientStream, error) { return streamer(ctx, desc, cc, method) })
		})))
	return p
}

// canned answers by itself.
type canned struct{ grpc.ClientStream }

func (canned) RecvMsg(any) error { return io.EOF }

// wrapped is an interceptor's own stream. With again it is opened anew when it has
// ended before its time, as go-grpc-middleware's retry does.
type wrapped struct {
	grpc.ClientStream

	again func() (grpc.ClientStream, error)
}

func (w *wrapped) SendMsg(m any) error {
	if err := w.ClientStream.SendMsg(m); w.again == nil {
		return err
	}
	return nil // what comes of it is for RecvMsg
}

func (w *wrapped) RecvMsg(m any) error {
	err := w.ClientStream.RecvMsg(m)
	if err == nil || w.again == nil {
		return err
	}
	if w.ClientStream, err = w.again(); err != nil {
		return err
	}
	w.again = nil
	if err := w.ClientStream.SendMsg(&testpb.StreamingOutputCallRequest{}); err != nil {
		return err
	}
	return w.ClientStream.RecvMsg(m)
}

// interceptors open streams in ways that programs do.
var interceptors = map[string]func(ctx context.Context, pass, bare opener) (grpc.ClientStream, error){
	"opens it": func(ctx context.Context, pass, _ opener) (grpc.ClientStream, error) { return pass(ctx) },
	"opens it again after a failed try": func(ctx context.Context, pass, _ opener) (grpc.ClientStream, error) {
		try, cancel := context.WithCancel(ctx)
		_, err := pass(try)
		cancel()
		if err != nil {
			return nil, err
		}
		time.Sleep(50 * time.Millisecond)
		return pass(ctx)
	},
	"gives a try up late": func(ctx context.Context, pass, _ opener) (grpc.ClientStream, error) {
		try, cancel := context.WithCancel(ctx)
		time.AfterFunc(time.Second, cancel)
		if _, err := pass(try); err != nil {
			return nil, err
		}
		return pass(ctx)
	},
	"opens it again when it is read": func(ctx context.Context, pass, _ opener) (grpc.ClientStream, error) {
		try, cancel := context.WithCancel(ctx)
		time.AfterFunc(time.Second, cancel)
		s, err := pass(try)
		return &wrapped{s, func() (grpc.ClientStream, error) { return pass(ctx) }}, err
	},
	"wraps it": func(ctx context.Context, pass, _ opener) (grpc.ClientStream, error) {
		s, err := pass(ctx)
		return &wrapped{ClientStream: s}, err
	},
	"drops the options": func(ctx context.Context, _, bare opener) (grpc.ClientStream, error) { return bare(ctx) },
	"drops the options and wraps it": func(ctx context.Context, _, bare opener) (grpc.ClientStream, error) {
		s, err := bare(ctx)
		return &wrapped{ClientStream: s}, err
	},
}

// A lease is for one call of the caller's, whatever interceptors make of it.
func TestAStreamHoldsOneLeaseWhateverInterceptorsDo(t *testing.T) {
	for name, open := range interceptors {
		for ending, end := range map[string]func(*testing.T, testpb.TestService_FullDuplexCallClient, func()){
			"read to its end": func(t *testing.T, s testpb.TestService_FullDuplexCallClient, _ func()) {
				if err := s.CloseSend(); err != nil {
					t.Error(err)
				}
				if _, err := s.Recv(); err == nil {
					t.Error("the stream goes on")
				}
			},
			"cancelled": func(_ *testing.T, _ testpb.TestService_FullDuplexCallClient, cancel func()) {
				cancel()
				time.Sleep(100 * time.Millisecond)
			},
		} {
			t.Run(name+", "+ending, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := intercepted(t, open)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					s, err := testpb.NewTestServiceClient(p).FullDuplexCall(ctx)
					if err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Minute)
					wantLeases(t, p, 1)
					roundTrip(t, s)
					wantLeases(t, p, 1)
					end(t, s, cancel)
					wantLeases(t, p, 0)
				})
			})
		}
	}
}

func TestNoStreamNoLease(t *testing.T) {
	for name, open := range map[string]func(context.Context, opener, opener) (grpc.ClientStream, error){
		"fails":           func(context.Context, opener, opener) (grpc.ClientStream, error) { return nil, errScripted },
		"returns nothing": func(context.Context, opener, opener) (grpc.ClientStream, error) { return nil, nil }, //nolint:nilnil // a bug of the interceptor
		"panics":          func(context.Context, opener, opener) (grpc.ClientStream, error) { panic("a bug") },
		"opens it and panics": func(ctx context.Context, pass, _ opener) (grpc.ClientStream, error) {
			_, _ = pass(ctx)
			panic("a bug")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := intercepted(t, open)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				func() {
					defer func() { _ = recover() }() // as net/http's server does
					if s, _ := p.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/a/B"); s != nil {
						t.Error("a stream")
					}
				}()
				wantLeases(t, p, 0)
			})
		})
	}
}

func TestAnInterceptorThatAnswersByItselfGivesTheLeaseBack(t *testing.T) {
	own := func(context.Context, opener, opener) (grpc.ClientStream, error) { return canned{}, nil }
	for name, end := range map[string]func(grpc.ClientStream, func()){
		"read to its end": func(s grpc.ClientStream, _ func()) { _ = s.RecvMsg(nil) },
		"cancelled":       func(_ grpc.ClientStream, cancel func()) { cancel(); time.Sleep(100 * time.Millisecond) },
		"it panics": func(s grpc.ClientStream, _ func()) {
			defer func() { _ = recover() }()
			_ = s.SendMsg(nil) // there is none
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := intercepted(t, own)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				s, err := p.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/a/B")
				if err != nil {
					t.Fatal(err)
				}
				wantLeases(t, p, 1)
				end(s, cancel)
				wantLeases(t, p, 0)
			})
		})
	}
}

// picky refuses a message, and leaves the stream as it is.
type picky struct{ grpc.ClientStream }

func (s picky) SendMsg(m any) error {
	if in, ok := m.(*testpb.StreamingOutputCallRequest); ok && in.GetPayload() != nil {
		return errScripted
	}
	return s.ClientStream.SendMsg(m)
}

func TestAMessageThatAnInterceptorRefusesDoesNotEndTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := intercepted(t, func(ctx context.Context, pass, _ opener) (grpc.ClientStream, error) {
			s, err := pass(ctx)
			return picky{s}, err
		})
		s := openStream(t, p)
		if err := s.Send(&testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{}}); !errors.Is(err, errScripted) {
			t.Error(err)
		}
		wantLeases(t, p, 1)
		roundTrip(t, s)
		if err := s.CloseSend(); err != nil {
			t.Error(err)
		}
		_, _ = s.Recv()
		wantLeases(t, p, 0)
	})
}

// A message that gRPC itself refuses ends the stream.
func TestAMessageThatIsTooLargeEndsTheLease(t *testing.T) {
	for name, open := range interceptors {
		if name == "drops the options and wraps it" {
			continue // nobody tells: it ends with its context
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := intercepted(t, open, grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(100)))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				s, err := testpb.NewTestServiceClient(p).FullDuplexCall(ctx)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				err = s.Send(&testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: make([]byte, 1000)}})
				if err != nil {
					wantLeases(t, p, 0)
				}
			})
		})
	}
}

// A stream that gRPC ends gives its lease back though nobody reads it.
func TestAStreamThatTheServiceConfigEndsGivesItsLeaseBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := intercepted(t, interceptors["opens it"], methodConfig(`"timeout":"2s"`))
		if _, err := testpb.NewTestServiceClient(p).FullDuplexCall(context.Background()); err != nil {
			t.Fatal(err)
		}
		wantLeases(t, p, 1)
		time.Sleep(3 * time.Second)
		wantLeases(t, p, 0)
	})
}

// A stream is not kept from being made again by the count of its lease: gRPC does
// so with one that the server has not begun, until the stream's Context is asked for.
func TestTheCountOfLeasesLeavesGRPCsRetriesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		p, _ := inMemoryWith(t, []grpcpooltest.Option{grpcpooltest.WithServerOptions(grpc.StreamInterceptor(
			func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
				if tries++; tries == 1 {
					return grpcpool.ErrConnectionNotOK // Unavailable
				}
				return handler(srv, stream)
			}))}, grpcpool.WithDialOptions(methodConfig(`"retryPolicy":{"maxAttempts":2,"initialBackoff":"0.01s","maxBackoff":"0.01s","backoffMultiplier":1,"retryableStatusCodes":["UNAVAILABLE"]}`)))
		s := openStream(t, p)
		wantLeases(t, p, 1)
		if err := s.CloseSend(); err != nil {
			t.Error(err)
		}
		_, _ = s.Recv()
		wantLeases(t, p, 0)
		if tries != 2 {
			t.Errorf("the stream was made %d times, want 2", tries)
		}
	})
}

func methodConfig(what string) grpc.DialOption {
	return grpc.WithDefaultServiceConfig(`{"methodConfig":[{"name":[{"service":"grpc.testing.TestService"}],` + what + `}]}`)
}

// A unary RPC gives its lease back too, and a hook that panics does not keep it.
func TestAPanicGivesTheLeaseOfAnRPCBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := inMemoryWith(t, nil, grpcpool.WithPing(func(context.Context, *grpc.ClientConn) (time.Duration, error) { return 0, nil }),
			grpcpool.WithDialOptions(grpc.WithUnaryInterceptor(
				func(context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption) error {
					panic("a bug")
				})))
		func() {
			defer func() { _ = recover() }()
			_, _ = testpb.NewTestServiceClient(p).EmptyCall(t.Context(), &testpb.Empty{})
			t.Error("it did not panic")
		}()
		wantLeases(t, p, 0)
	})
}
