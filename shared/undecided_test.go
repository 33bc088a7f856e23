package shared_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// inMemoryWith is inMemory with a choice of server and factory.
func inMemoryWith(t *testing.T, cfg []grpcpooltest.Option, opts ...grpcpool.FactoryOption) (*shared.Pool, *grpcpooltest.Server) {
	t.Helper()
	cfg = append(cfg, grpcpooltest.WithInMemory())
	server := grpcpooltest.NewServer(t, cfg...)
	opts = append(opts, grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
	f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	return newPool(t, f, 0), server
}

func openStream(t *testing.T, p *shared.Pool) testpb.TestService_FullDuplexCallClient {
	t.Helper()
	s, err := testpb.NewTestServiceClient(p).FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, s)
	return s
}

func roundTrip(t *testing.T, s testpb.TestService_FullDuplexCallClient) {
	t.Helper()
	if err := s.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Error(err)
	}
}

// Below a limit of 10 no stream is kept free for tests. One that finds none says
// nothing: a second channel would only break the bound on connections, and leave
// those who wait on the first one there.
func TestAChannelThatIsFullIsNotReplaced(t *testing.T) {
	for name, test := range map[string]struct {
		ping   grpcpool.PingFunc
		dial   []grpc.DialOption
		tested bool
	}{
		"the health service": {grpcpool.HealthPing, unwatched(), true},
		"the program's ping": {anyAnswer, unwatched(), true},
		"watched":            {grpcpool.HealthPing, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, server := inMemoryWith(t, []grpcpooltest.Option{grpcpooltest.WithServerOptions(grpc.MaxConcurrentStreams(5))},
					grpcpool.WithPing(test.ping), grpcpool.WithDialOptions(scale.WithMaxConnections(2)), grpcpool.WithDialOptions(test.dial...))
				streams := make([]testpb.TestService_FullDuplexCallClient, 0, 10)
				for range 10 { // all that two connections of five allow
					streams = append(streams, openStream(t, p))
				}
				served := make(chan error)
				go func() {
					_, err := testpb.NewTestServiceClient(p).EmptyCall(t.Context(), &testpb.Empty{})
					served <- err
				}()
				time.Sleep(time.Minute)
				if s := p.Stats(); server.Accepted() != 2 || s.Replaced != 0 || s.Channels != 1 || s.State != shared.StateReady || (s.Tests > 0) != test.tested {
					t.Errorf("%d connections, %d channels replaced, %d open, %s, %d tests; want 2, 0, 1, ready, some: %v", server.Accepted(), s.Replaced, s.Channels, s.State, s.Tests, test.tested)
				}
				if err := streams[0].CloseSend(); err != nil {
					t.Error(err)
				}
				_, _ = streams[0].Recv()
				if err := <-served; err != nil {
					t.Errorf("a call that waited: %v", err)
				}
				for _, s := range streams[1:] {
					roundTrip(t, s)
				}
			})
		})
	}
}

// The harm that this must not do: a channel with free streams that does not answer
// is replaced, as ever, and so is a full one that nobody else looks after.
func TestATestThatWaitsInVainOnAPlainChannelIsAFailedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(), grpcpooltest.WithServerOptions(grpc.MaxConcurrentStreams(1)))
		p := newPool(t, &plainFactory{server}, 0)
		s := openStream(t, p)
		time.Sleep(10 * time.Second)
		if st := p.Stats(); st.Replaced == 0 {
			t.Error("a channel that is full, and may be dead, was not replaced")
		}
		roundTrip(t, s)
		if err := s.CloseSend(); err != nil {
			t.Error(err)
		}
		_, _ = s.Recv()
	})
}

// plainFactory makes channels by grpc.NewClient.
type plainFactory struct{ server *grpcpooltest.Server }

func (f *plainFactory) NewConnection(context.Context) (*grpc.ClientConn, error) {
	return grpc.NewClient(f.server.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(f.server.Dial))
}

func (f *plainFactory) ConnectionOk(ctx context.Context, conn *grpc.ClientConn) error {
	_, err := grpcpool.HealthPing(ctx, conn)
	return err
}

// Row 32 of the fault matrix, for a source of tokens: credentials that fail say
// nothing about the connection. The calls tell, as they do
// on a plain channel, and when they are good again nothing has to be dialled.
func TestFailingCredentialsAreNotTheConnectionsFault(t *testing.T) {
	for name, fail := range map[string]func(context.Context) error{
		"failing": func(context.Context) error { return errScripted },
		"hanging": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				token := &tokens{}
				p, server := inMemoryWith(t, nil, grpcpool.WithDialOptions(grpc.WithPerRPCCredentials(token), scale.WithProbeInterval(0)))
				call := func() error {
					ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
					defer cancel()
					_, err := testpb.NewTestServiceClient(p).EmptyCall(ctx, &testpb.Empty{})
					return err
				}
				if err := call(); err != nil {
					t.Fatal(err)
				}
				token.fail.Store(&fail)
				for range 5 {
					time.Sleep(time.Second)
					if err := call(); status.Code(err) != codes.Unauthenticated && status.Code(err) != codes.DeadlineExceeded || errors.Is(err, grpcpool.ErrConnectionNotOK) {
						t.Errorf("%v, want what the call itself ends with", err)
					}
					borrow(t, p)
				}
				token.fail.Store(nil)
				if err := call(); err != nil || server.Accepted() != 1 {
					t.Errorf("%v, and %d connections were dialled, want 1", err, server.Accepted())
				}
				if e := find(p.Stats().Events, shared.EventTestFailed); !strings.Contains(e.Text, "says nothing about the connection") {
					t.Errorf("the event says %q", e.Text)
				}
			})
		})
	}
}

func find(events []shared.Event, kind shared.EventKind) (found shared.Event) {
	for _, e := range events {
		if e.Kind == kind {
			found = e
		}
	}
	return found
}

// tokens are credentials that fail on demand.
type tokens struct {
	fail atomic.Pointer[func(context.Context) error]
}

func (k *tokens) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	if fail := k.fail.Load(); fail != nil {
		return nil, (*fail)(ctx)
	}
	return map[string]string{"authorization": "token"}, nil
}

func (*tokens) RequireTransportSecurity() bool { return false }
