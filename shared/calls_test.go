package shared_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/shared"
)

// tally is RPCs by their status, as Stats.Calls has them.
type tally map[codes.Code]uint64

func wantCalls(t *testing.T, p *shared.Pool, want tally) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, tally(p.Stats().Calls)); diff != "" {
		t.Errorf("Stats.Calls (-want +got):\n%s", diff)
	}
	if n := p.Stats().Leases; n != 0 {
		t.Errorf("%d leases out", n)
	}
}

// stubborn is a server whose EmptyCall does what do says.
func stubborn(do func(context.Context) error) []grpcpooltest.Option {
	if do == nil {
		return nil
	}
	return []grpcpooltest.Option{grpcpooltest.WithEmptyCall(do)}
}

func untilCancelled(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// unaryWith makes RPCs go through f.
func unaryWith(f func(ctx context.Context, invoke func(...grpc.CallOption) error, opts []grpc.CallOption) error) grpcpool.FactoryOption {
	return grpcpool.WithDialOptions(grpc.WithUnaryInterceptor(
		func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if method != testpb.TestService_EmptyCall_FullMethodName {
				return invoker(ctx, method, request, reply, cc, opts...) // the pool's test
			}
			return f(ctx, func(opts ...grpc.CallOption) error { return invoker(ctx, method, request, reply, cc, opts...) }, opts)
		}))
}

// What a unary RPC counts as is what its caller sees, and it counts once.
func TestAUnaryRPCCountsOnceByTheStatusThatItsCallerSees(t *testing.T) {
	for name, test := range map[string]struct {
		server  func(context.Context) error
		through func(ctx context.Context, invoke func(...grpc.CallOption) error, opts []grpc.CallOption) error
		ctx     func(context.Context) (context.Context, context.CancelFunc)
		meet    func(*shared.Pool, *grpcpooltest.Server)
		want    codes.Code
	}{
		"answered": {},
		"refused by the server": {
			server: func(context.Context) error { return status.Error(codes.NotFound, "no such order") },
			want:   codes.NotFound,
		},
		"with a code that gRPC does not know": {
			server: func(context.Context) error { return status.Error(1234, "a code of our own") },
			want:   1234,
		},
		"cancelled": {
			server: untilCancelled,
			ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(time.Second, cancel)
				return ctx, cancel
			},
			want: codes.Canceled,
		},
		"past its deadline": {
			server: untilCancelled,
			ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, time.Second)
			},
			want: codes.DeadlineExceeded,
		},
		"cancelled before it began": {
			ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				cancel()
				return ctx, cancel
			},
			want: codes.Canceled,
		},
		"cut by the server's end": {
			server: untilCancelled,
			meet:   func(_ *shared.Pool, s *grpcpooltest.Server) { s.Stop() },
			want:   codes.Unavailable,
		},
		"cut by Close": {
			server: untilCancelled,
			meet:   func(p *shared.Pool, _ *grpcpooltest.Server) { _ = p.Close() },
			want:   codes.Canceled,
		},
		"answered by an interceptor": {
			through: func(context.Context, func(...grpc.CallOption) error, []grpc.CallOption) error { return nil },
		},
		"refused by an interceptor": {
			through: func(context.Context, func(...grpc.CallOption) error, []grpc.CallOption) error {
				return status.Error(codes.ResourceExhausted, "slow down")
			},
			want: codes.ResourceExhausted,
		},
		"failed by an interceptor, without a status": {
			through: func(context.Context, func(...grpc.CallOption) error, []grpc.CallOption) error { return errScripted },
			want:    codes.Unknown,
		},
		"panicked by an interceptor": {
			through: func(context.Context, func(...grpc.CallOption) error, []grpc.CallOption) error { panic(errScripted) },
			want:    codes.Unknown,
		},
		"made three times by an interceptor": {
			through: func(_ context.Context, invoke func(...grpc.CallOption) error, opts []grpc.CallOption) error {
				return errors.Join(invoke(opts...), invoke(opts...), invoke(opts...))
			},
		},
		"without its options": {
			through: func(_ context.Context, invoke func(...grpc.CallOption) error, _ []grpc.CallOption) error {
				return invoke()
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if test.through == nil {
					test.through = func(_ context.Context, invoke func(...grpc.CallOption) error, opts []grpc.CallOption) error {
						return invoke(opts...)
					}
				}
				p, server := inMemoryWith(t, stubborn(test.server), unaryWith(test.through))
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if test.ctx != nil {
					ctx, cancel = test.ctx(ctx)
				}
				defer cancel()
				if test.meet != nil {
					time.AfterFunc(time.Second, func() { test.meet(p, server) })
				}
				err := errScripted
				func() {
					defer func() { _ = recover() }()
					_, err = testpb.NewTestServiceClient(p).EmptyCall(ctx, &testpb.Empty{}, grpc.WaitForReady(true))
				}()
				if got := status.Code(err); got != test.want {
					t.Errorf("the caller sees %v (%v), want %v", got, err, test.want)
				}
				if test.want > codes.Unauthenticated {
					test.want = codes.Unknown
				}
				wantCalls(t, p, tally{test.want: 1})
			})
		})
	}
}

// A call that gets no lease has ended too.
func TestAnRPCWithoutALeaseCountsToo(t *testing.T) {
	type factory = grpcpool.ConnectionFactory
	hangs := &fakeFactory{onDial: untilCancelled}
	for name, test := range map[string]struct {
		factory factory
		opts    []shared.Option
		want    codes.Code
	}{
		"a mistake in the options":  {&fakeFactory{}, []shared.Option{shared.WithDialTimeout(0)}, codes.FailedPrecondition},
		"no factory":                {nil, nil, codes.FailedPrecondition},
		"a dial that fails":         {&fakeFactory{onDial: failDial}, nil, codes.Unavailable},
		"a deadline before a dial":  {hangs, nil, codes.DeadlineExceeded},
		"a channel that is not had": {noChannels{}, nil, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPool(t, test.factory, 0, test.opts...)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := testpb.NewTestServiceClient(p).EmptyCall(ctx, &testpb.Empty{})
				_, streamErr := testpb.NewTestServiceClient(p).FullDuplexCall(ctx)
				want := tally{}
				for _, err := range []error{err, streamErr} {
					if name != "a deadline before a dial" && status.Code(err) != test.want {
						t.Errorf("the caller sees %v, want %v", err, test.want)
					}
					want[status.Code(err)]++
				}
				wantCalls(t, p, want)
			})
		})
	}
}

// noChannels is a ChannelFactory that makes none.
type noChannels struct{ *grpcpool.Factory }

func (noChannels) NewChannel(context.Context) (*grpc.ClientConn, grpcpool.Inspector, error) {
	return nil, nil, errScripted
}

func TestAnRPCOnAClosedPoolCountsAsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := inMemory(t, time.Minute)
		borrow(t, p)
		_ = p.Close()
		client := testpb.NewTestServiceClient(p)
		_, err := client.EmptyCall(t.Context(), &testpb.Empty{})
		_, streamErr := client.FullDuplexCall(t.Context())
		for _, err := range []error{err, streamErr} {
			if !errors.Is(err, grpcpool.ErrClosed) || status.Code(err) != codes.Canceled {
				t.Errorf("an RPC on a closed pool: %v", err)
			}
		}
		wantCalls(t, p, tally{codes.Canceled: 2})
	})
}

// ending is how a stream is brought to its end, and what it then counts as.
type ending struct {
	ctx  func(context.Context) (context.Context, context.CancelFunc)
	end  func(s testpb.TestService_FullDuplexCallClient, cancel context.CancelFunc, p *shared.Pool, server *grpcpooltest.Server)
	want codes.Code
}

func untilEnd(s testpb.TestService_FullDuplexCallClient) (err error) {
	for err == nil {
		_, err = s.Recv()
	}
	return err
}

var endings = map[string]ending{
	"read to its end": {
		end: func(s testpb.TestService_FullDuplexCallClient, _ context.CancelFunc, _ *shared.Pool, _ *grpcpooltest.Server) {
			_ = s.CloseSend()
			_ = untilEnd(s)
		},
	},
	"refused by the server": {
		end: func(s testpb.TestService_FullDuplexCallClient, _ context.CancelFunc, _ *shared.Pool, _ *grpcpooltest.Server) {
			_ = s.Send(&testpb.StreamingOutputCallRequest{ResponseStatus: &testpb.EchoStatus{Code: int32(codes.NotFound)}})
			_ = untilEnd(s)
		},
		want: codes.NotFound,
	},
	"cancelled while it is read": {
		end: func(s testpb.TestService_FullDuplexCallClient, cancel context.CancelFunc, _ *shared.Pool, _ *grpcpooltest.Server) {
			time.AfterFunc(time.Second, cancel)
			_ = untilEnd(s)
		},
		want: codes.Canceled,
	},
	"cancelled, and not read": {
		end: func(_ testpb.TestService_FullDuplexCallClient, cancel context.CancelFunc, _ *shared.Pool, _ *grpcpooltest.Server) {
			cancel()
			time.Sleep(100 * time.Millisecond)
		},
		want: codes.Canceled,
	},
	"past its deadline": {
		ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 90*time.Second)
		},
		end: func(testpb.TestService_FullDuplexCallClient, context.CancelFunc, *shared.Pool, *grpcpooltest.Server) {
			time.Sleep(time.Minute)
		},
		want: codes.DeadlineExceeded,
	},
	"cut by the server's end": {
		end: func(s testpb.TestService_FullDuplexCallClient, _ context.CancelFunc, _ *shared.Pool, server *grpcpooltest.Server) {
			server.Stop()
			_ = untilEnd(s)
		},
		want: codes.Unavailable,
	},
	"cut by Close, and not read": {
		end: func(_ testpb.TestService_FullDuplexCallClient, cancel context.CancelFunc, p *shared.Pool, _ *grpcpooltest.Server) {
			_ = p.Close()
			cancel() // nobody tells of an interceptor's stream
			time.Sleep(100 * time.Millisecond)
		},
		want: codes.Canceled,
	},
	"cut by Close": {
		end: func(s testpb.TestService_FullDuplexCallClient, _ context.CancelFunc, p *shared.Pool, _ *grpcpooltest.Server) {
			_ = p.Close()
			_ = untilEnd(s)
		},
		want: codes.Canceled,
	},
}

// What a stream counts as is how its caller's stream has ended, whatever has become of others
// that an interceptor has opened for it.
func TestAStreamCountsOnceByHowItHasEnded(t *testing.T) {
	all := maps.Clone(interceptors)
	all["has a try time out, and drops the options"] = func(ctx context.Context, pass, bare opener) (grpc.ClientStream, error) {
		try, cancel := context.WithTimeout(ctx, time.Second)
		time.AfterFunc(2*time.Second, cancel)
		if _, err := pass(try); err != nil {
			return nil, err
		}
		return bare(ctx)
	}
	for name, open := range all {
		for how, e := range endings {
			t.Run(name+", "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { countAStream(t, open, e) })
			})
		}
	}
}

func countAStream(t *testing.T, open func(ctx context.Context, pass, bare opener) (grpc.ClientStream, error), e ending) {
	p, server := inMemoryWith(t, []grpcpooltest.Option{grpcpooltest.WithServerOptions(grpc.StreamInterceptor(asTheMessageSays))},
		streamsWith(open))
	ctx, cancel := context.WithCancel(t.Context())
	if e.ctx != nil {
		ctx, cancel = e.ctx(t.Context())
	}
	defer cancel()
	s, err := testpb.NewTestServiceClient(p).FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute) // what an interceptor gives up, it has given up by now
	roundTrip(t, s)
	if n := p.Stats().Calls; len(n) != 0 {
		t.Errorf("%v ended before the stream", n)
	}
	e.end(s, cancel, p, server)
	wantCalls(t, p, tally{e.want: 1})
}

// streamsWith makes the streams of a channel be opened by open, as intercepted does.
func streamsWith(open func(ctx context.Context, pass, bare opener) (grpc.ClientStream, error)) grpcpool.FactoryOption {
	return grpcpool.WithDialOptions(grpc.WithStreamInterceptor(
		func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(ctx,
				func(ctx context.Context) (grpc.ClientStream, error) { return streamer(ctx, desc, cc, method, opts...) },
				func(ctx context.Context) (grpc.ClientStream, error) { return streamer(ctx, desc, cc, method) })
		}))
}

// asTheMessageSays ends a stream with the status that a message asks for.
func asTheMessageSays(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return handler(srv, obedient{stream})
}

type obedient struct{ grpc.ServerStream }

func (s obedient) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if in, ok := m.(*testpb.StreamingOutputCallRequest); ok && err == nil && in.GetResponseStatus() != nil {
		return status.Error(codes.Code(in.GetResponseStatus().GetCode()), "as asked")
	}
	return err
}

func TestAStreamThatDoesNotBeginCountsToo(t *testing.T) {
	for name, test := range map[string]struct {
		open func(context.Context, opener, opener) (grpc.ClientStream, error)
		want codes.Code
	}{
		"fails": {func(context.Context, opener, opener) (grpc.ClientStream, error) { return nil, errScripted }, codes.Unknown},
		"fails with a status": {func(context.Context, opener, opener) (grpc.ClientStream, error) {
			return nil, status.Error(codes.PermissionDenied, "not you")
		}, codes.PermissionDenied},
		"panics": {func(context.Context, opener, opener) (grpc.ClientStream, error) { panic("a bug") }, codes.Unknown},
		"opens it and panics": {func(ctx context.Context, pass, _ opener) (grpc.ClientStream, error) {
			_, _ = pass(ctx)
			panic("a bug")
		}, codes.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, _ := inMemoryWith(t, nil, streamsWith(test.open))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				func() {
					defer func() { _ = recover() }()
					_, err := testpb.NewTestServiceClient(p).FullDuplexCall(ctx)
					if got := status.Code(err); got != test.want {
						t.Errorf("the caller sees %v, want %v", err, test.want)
					}
				}()
				wantCalls(t, p, tally{test.want: 1})
			})
		})
	}
}

func TestAStreamOfAnInterceptorsOwnCountsByHowItHasEnded(t *testing.T) {
	own := func(context.Context, opener, opener) (grpc.ClientStream, error) { return canned{}, nil }
	for name, test := range map[string]struct {
		end  func(grpc.ClientStream, func())
		want codes.Code
	}{
		"read to its end": {func(s grpc.ClientStream, _ func()) { _ = s.RecvMsg(nil) }, codes.OK},
		"cancelled":       {func(_ grpc.ClientStream, cancel func()) { cancel(); time.Sleep(100 * time.Millisecond) }, codes.Canceled},
		"it panics": {func(s grpc.ClientStream, _ func()) {
			defer func() { _ = recover() }()
			_ = s.SendMsg(nil) // there is none
		}, codes.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, _ := inMemoryWith(t, nil, streamsWith(own))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				s, err := p.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/a/B")
				if err != nil {
					t.Fatal(err)
				}
				test.end(s, cancel)
				wantCalls(t, p, tally{test.want: 1})
			})
		})
	}
}

// An interceptor may answer on a context that has ended. With the race detector this also
// shows whether the end of the context meets a stream that is still being made.
func TestAStreamOnAContextThatHasEndedCountsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := inMemoryWith(t, nil, streamsWith(func(context.Context, opener, opener) (grpc.ClientStream, error) { return canned{}, nil }))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := p.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/a/B"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		wantCalls(t, p, tally{codes.Canceled: 1})
	})
}

// A stream that nobody reads counts when gRPC ends it.
func TestAStreamThatTheServiceConfigEndsCountsAsPastItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := inMemoryWith(t, nil, grpcpool.WithDialOptions(methodConfig(`"timeout":"2s"`)))
		if _, err := testpb.NewTestServiceClient(p).FullDuplexCall(context.Background()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		wantCalls(t, p, tally{codes.DeadlineExceeded: 1})
	})
}

// The one response of a client-streaming RPC ends it.
func TestAClientStreamCountsWithItsResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := inMemory(t, time.Minute)
		s, err := testpb.NewTestServiceClient(p).StreamingInputCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.CloseAndRecv(); err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		wantCalls(t, p, tally{codes.OK: 1})
	})
}
