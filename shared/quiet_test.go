package shared_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// lateEvents is a factory whose channels report what happens to them late, as in a process
// that is busy.
type lateEvents struct {
	*grpcpool.Factory

	by time.Duration
}

func (f lateEvents) NewInspectedConnection(ctx context.Context) (*grpc.ClientConn, grpcpool.Inspector, error) {
	return f.Factory.NewInspectedConnection(f.delayed(ctx))
}

func (f lateEvents) NewChannel(ctx context.Context) (*grpc.ClientConn, grpcpool.Inspector, error) {
	return f.Factory.NewChannel(f.delayed(ctx))
}

func (f lateEvents) delayed(ctx context.Context) context.Context {
	report := grpcpool.EventsFromContext(ctx)
	return grpcpool.ContextWithEvents(ctx, func(e scale.Event) {
		time.Sleep(f.by) // virtual
		report(e)
	})
}

// forgetful is a pool over a server, which it has used. It is told by late of what happens to
// its connections. forget waits until the channel has probed its connection, which nobody
// uses, and then has it die without a word.
func forgetful(t *testing.T, late time.Duration, opts ...shared.Option) (p *shared.Pool, forget func()) {
	t.Helper()
	probes := make(chan struct{}) // while somebody waits for one
	server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(), grpcpooltest.WithServerOptions(grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			select {
			case probes <- struct{}{}:
			default:
			}
			return handler(ctx, req)
		})))
	var link atomic.Pointer[grpcpooltest.Link]
	link.Store(grpcpooltest.NewLink(server.Dial))
	f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), grpcpool.WithDialOptions(
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return link.Load().Dial(ctx, addr) })))
	if err != nil {
		t.Fatal(err)
	}
	p = newPool(t, lateEvents{f, late}, 0, opts...)
	if err := try(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	return p, func() {
		<-probes
		synctest.Wait() // the answer has come
		link.Swap(grpcpooltest.NewLink(server.Dial)).Blackhole()
	}
}

// wantUse checks that a lease and a call on it can be had within 5 s, and that they have
// taken no other channel.
func wantUse(t *testing.T, p *shared.Pool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	begun := time.Now()
	if err := try(ctx, p); err != nil {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
	if s := p.Stats(); s.Dials != 1 {
		t.Errorf("%d channels were dialled, want 1", s.Dials)
	}
}

// The channel ejects the connection that the second test is on, and has another. The test
// has failed before the pool is told of either.
func TestATestThatEndedWithItsConnectionIsMadeAgainBeforeTheEventsAreTold(t *testing.T) {
	for _, late := range []time.Duration{0, 50 * time.Millisecond, 2 * time.Second} {
		t.Run(late.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// The second test begins before the connection is found silent, and is sent on it.
				p, forget := forgetful(t, late, shared.WithTestTimeout(800*time.Millisecond))
				time.Sleep(20 * time.Minute) // virtual
				forget()
				time.Sleep(time.Second) // the next probe is not due yet
				wantUse(t, p)
				if s := p.Stats(); s.Tests != 3 || s.TestsFailed != 2 {
					t.Errorf("%d tests, %d of them failed, want 3 and 2: one without an answer, one that ended with its connection, one on the next", s.Tests, s.TestsFailed)
				}
			})
		})
	}
}

// A probe has proved the unused connection just before it died. The proof is as young as one
// that is enough for a lease while the channel is in use.
func TestTheProofOfAnUnusedChannelIsNotEnoughForALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, forget := forgetful(t, 0)
		time.Sleep(20 * time.Minute) // virtual
		forget()
		wantUse(t, p)
	})
}
