package identity_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/scale"
)

// A source that returns when its context ends has said why it failed. That is told, and
// not that it was late.
func TestTheErrorOfASourceThatRunsOutOfTimeIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := localhost(t)
		ready, sealed := identityOf(t, l.CA, l.Client), false
		provider := must(identity.FromSource(func(ctx context.Context) (identity.Identity, error) {
			if !sealed {
				return ready, nil
			}
			<-ctx.Done()
			time.Sleep(50 * time.Millisecond) // it closes its connection
			return identity.Identity{}, fmt.Errorf("the vault is sealed: %w", ctx.Err())
		}))
		sealed = true
		for _, limit := range []time.Duration{time.Second, time.Hour} {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			begun := time.Now()
			err := provider.Reload(ctx)
			cancel()
			wantError(t, err, "identity: FromSource: the vault is sealed")
			if took := time.Since(begun); took > min(limit, 10*time.Second) {
				t.Errorf("with %v it took %v", limit, took)
			}
		}
		wantError(t, provider.Info().LastError, "the vault is sealed")
		if err := provider.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Some channels close while a new identity is replaced: the others are on it in time.
func TestChannelsThatCloseDuringAReplacementLeaveTheOthersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const channels = 100
		s := newServed(t)
		conns := make([]*grpc.ClientConn, channels)
		for i := range conns {
			conns[i] = s.channel(t, scale.WithProbeInterval(0), grpc.WithIdleTimeout(0))
		}
		wantWatches(t, 1)
		next := s.renew(t)
		if err := s.provider.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		var closing sync.WaitGroup
		for i, conn := range conns[:channels/2] {
			closing.Go(func() {
				time.Sleep(time.Duration(i) * 200 * time.Millisecond)
				conn.Close()
			})
		}
		closing.Wait()
		time.Sleep(20 * time.Second)
		s.wantOpen(t, next, channels/2)
		for _, conn := range conns[channels/2:] {
			call(t, conn)
			conn.Close()
		}
		wantWatches(t, 0)
		s.door.wantNobodyRefused(t)
	})
}

// Close, the first channel, and a source that hangs, all at once: Close returns within a
// second and a bit, and no watch is left or begins after it.
func TestCloseDuringAHangingCheckAndTheFirstChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := localhost(t)
		d := openDoor(t, l.CA, l.Server)
		server := startBehind(t, d, []grpcpooltest.Option{grpcpooltest.WithInMemory()})
		source := &stuck{identity: identityOf(t, l.CA, l.Client)}
		provider := must(identity.FromSource(source.source))
		conn := must(scale.NewClient(server.Target(), provider.DialOption(), grpc.WithContextDialer(server.Dial)))
		call(t, conn)
		release := source.hold()
		time.Sleep(11 * time.Second) // the watch's check hangs
		var running sync.WaitGroup
		for range 4 {
			running.Go(func() {
				begun := time.Now()
				if err := provider.Close(); err == nil {
					t.Error("Close does not say what hangs")
				}
				if took := time.Since(begun); took > 2*time.Second {
					t.Errorf("Close took %v", took)
				}
			})
			running.Go(func() {
				conn := must(scale.NewClient(server.Target(), provider.DialOption(), grpc.WithContextDialer(server.Dial)))
				call(t, conn)
				conn.Close()
			})
		}
		running.Wait()
		wantWatches(t, 0)
		call(t, conn)
		release()
		if err := provider.Close(); err != nil {
			t.Errorf("with the source back: %v", err)
		}
		conn.Close()
		again := must(scale.NewClient(server.Target(), provider.DialOption(), grpc.WithContextDialer(server.Dial)))
		call(t, again)
		wantWatches(t, 0)
		again.Close()
	})
}

// A channel goes idle and wakes at the same moment, over and over: a channel that is
// active has a watch.
func TestAChannelThatWakesWhileTheWatchEndsHasAWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServed(t)
		conns := []*grpc.ClientConn{
			s.channel(t, grpc.WithIdleTimeout(time.Second)),
			s.channel(t, grpc.WithIdleTimeout(time.Second)),
		}
		for i := range 100 {
			time.Sleep(time.Second + time.Duration(i%5-2)*time.Nanosecond) // when they go idle, or just before or after
			var calls sync.WaitGroup
			for _, conn := range conns[:1+i%2] {
				calls.Go(func() { call(t, conn) })
			}
			calls.Wait()
			synctest.Wait()
			if n := watches(t); n != 1 {
				t.Fatalf("round %d: %d watches, want 1", i, n)
			}
		}
		for _, conn := range conns {
			conn.Close()
		}
		wantWatches(t, 0)
	})
}

// A factory that is closed takes nothing from another with the same provider.
func TestAFactoryThatIsClosedLeavesTheProviderToTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServed(t)
		dial := grpcpool.WithDialOptions(grpc.WithContextDialer(s.server.Dial))
		first := must(grpcpool.NewIdentityFactory(s.server.Target(), s.provider, dial))
		second := must(grpcpool.NewIdentityFactory(s.server.Target(), s.provider, dial))
		old := must(first.NewConnection(testContext(t)))
		conn := must(second.NewConnection(testContext(t)))
		old.Close()
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		wantWatches(t, 1)
		next := s.renew(t)
		time.Sleep(30 * time.Second)
		s.wantOpen(t, next, 1)
		conn.Close()
	})
}

// grpc.WithAuthority sets the name that a provider's channel verifies, as it does with
// TLS credentials. OverrideServerName is of one channel only.
func TestTheNameOfTheServerIsEachChannelsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := localhost(t)
		pair := issue(t, l.CA, grpcpooltest.CertRequest{Hosts: []string{"other.example"}})
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(), grpcpooltest.WithTLS(serverTLS(t, l.CA, pair)))
		provider := must(identity.FromPEM(l.CA.PEM, l.Client.CertPEM, l.Client.KeyPEM))
		dial := func(opts ...grpc.DialOption) error {
			conn := must(scale.NewClient(server.Target(), append(opts, grpc.WithContextDialer(server.Dial))...))
			defer conn.Close()
			_, err := testpb.NewTestServiceClient(conn).EmptyCall(testContext(t), &testpb.Empty{})
			return err
		}
		overridden := provider.Credentials()
		if err := overridden.OverrideServerName("other.example"); err != nil { //nolint:staticcheck // deprecated, and still in the interface
			t.Fatal(err)
		}
		for range 2 {
			if err := dial(provider.DialOption(), grpc.WithAuthority("other.example")); err != nil {
				t.Error(err)
			}
			if err := dial(grpc.WithTransportCredentials(overridden)); err != nil {
				t.Error(err)
			}
			if err := dial(grpc.WithTransportCredentials(overridden.Clone())); err != nil {
				t.Error(err)
			}
			wantError(t, dial(provider.DialOption()), "other.example")
		}
		_, err := grpcpool.NewFactory(server.Target(), overridden, grpcpool.WithServerName("third.example"))
		wantError(t, err, "grpcpool: ", "other.example", "third.example")
	})
}

// held is a log handler that does not return while it is held.
type held struct {
	slog.Handler

	opened chan struct{}
}

func (h held) Handle(context.Context, slog.Record) error {
	<-h.opened
	return nil
}

func (held) Enabled(context.Context, slog.Level) bool { return true }

func TestCloseReturnsThoughTheLogDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := held{slog.DiscardHandler, make(chan struct{})}
		s := newServed(t, identity.WithLogger(slog.New(h)))
		conn := s.channel(t)
		s.renew(t)
		time.Sleep(11 * time.Second) // the watch logs the new identity
		begun := time.Now()
		wantError(t, s.provider.Close(), "identity: closing: ", "the log's handler does not return")
		if took := time.Since(begun); took != time.Second {
			t.Errorf("Close took %v", took)
		}
		wantError(t, s.provider.Close(), "does not return")
		close(h.opened)
		if err := s.provider.Close(); err != nil {
			t.Error(err)
		}
		conn.Close()
	})
}
