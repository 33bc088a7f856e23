package shared_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// Faults under RPCs made on the pool, and nothing else: no Get finds out anything for them.

// overLink makes a pool over a link to a server in memory.
func overLink(t *testing.T, dial []grpc.DialOption, idle time.Duration, opts ...shared.Option) (*shared.Pool, *grpcpooltest.Link) {
	t.Helper()
	server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
	link := grpcpooltest.NewLink(server.Dial)
	f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), grpcpool.WithDialOptions(dial...), grpcpool.WithDialOptions(link.DialOption()))
	if err != nil {
		t.Fatal(err)
	}
	return newPool(t, f, idle, opts...), link
}

// watching is each way in which a channel may be watched.
var watching = map[string][]grpc.DialOption{
	"by itself":  nil,
	"by nobody":  unwatched(),
	"by grpc-go": {scale.WithUnsupervised()},
}

func TestTheIdleTimeoutBeginsWithTheEndOfTheLastCall(t *testing.T) {
	for name, dial := range watching {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, _ := overLink(t, dial, time.Minute)
				for range 20 {
					time.Sleep(3 * time.Second) // virtual, as what follows
					if err := emptyCall(p)(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Minute - time.Second)
				if n := p.Stats().IdleClosed; n != 0 {
					t.Error("the channel was closed before its time")
				}
				time.Sleep(time.Second + 300*time.Millisecond)
				if n := p.Stats().IdleClosed; n != 1 {
					t.Error("the channel is open after the idle timeout")
				}
			})
		})
	}
}

// A stream tells nothing by itself when its network has died.
func TestADeadConnectionUnderAStreamIsFoundWithoutAGet(t *testing.T) {
	for name, dial := range watching {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, link := overLink(t, dial, 0)
				if err := emptyCall(p)(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(30 * time.Second) // virtual, as what follows
				if _, err := testpb.NewTestServiceClient(p).FullDuplexCall(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				link.Blackhole()
				time.Sleep(5 * time.Second)
				if s := p.Stats(); s.TestsFailed == 0 && p.GetState() == connectivity.Ready {
					t.Errorf("after five seconds the pool is %s, its channel READY, and %d tests were made", s.State, s.Tests)
				}
			})
		})
	}
}

// What the channel makes good by itself needs no other channel beside it, during the outage
// or after it.
func TestCallsAloneNeverDialAnotherChannel(t *testing.T) {
	for name, dial := range watching {
		for _, age := range []time.Duration{time.Second, time.Minute} {
			t.Run(name+", "+age.String()+" old", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p, link := overLink(t, dial, 0)
					call := emptyCall(p)
					if err := call(t.Context()); err != nil {
						t.Fatal(err)
					}
					time.Sleep(age) // virtual, as what follows
					refuse(link)
					var waiting sync.WaitGroup
					for range 50 {
						time.Sleep(100 * time.Millisecond)
						_ = call(t.Context())
						waiting.Go(func() { // leases that are out prompt tests
							_, _ = testpb.NewTestServiceClient(p).EmptyCall(t.Context(), &testpb.Empty{}, grpc.WaitForReady(true))
						})
					}
					link.Heal()
					waiting.Wait()
					time.Sleep(time.Second)
					if err := call(t.Context()); err != nil {
						t.Error(err)
					}
					if s := p.Stats(); s.Dials != 1 || s.DialsFailed != 0 || s.Replaced != 0 {
						t.Errorf("%d channels dialled, %d in vain, %d replaced, want 1, 0, 0", s.Dials, s.DialsFailed, s.Replaced)
					}
				})
			})
		}
	}
}

func TestAnAnswerOfTheServerIsNotTheEndOfThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(), grpcpooltest.WithEmptyCall(func(context.Context) error {
			time.Sleep(time.Second) // virtual
			return status.Error(codes.Canceled, "the order was taken back")
		}))
		f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
		if err != nil {
			t.Fatal(err)
		}
		p := newPool(t, f, 0)
		time.AfterFunc(500*time.Millisecond, func() { _ = p.Close() })
		err = emptyCall(p)(t.Context())
		if status.Code(err) != codes.Canceled || errors.Is(err, grpcpool.ErrClosed) {
			t.Errorf("the server's answer while the pool drains: %v, matches ErrClosed: %v", err, errors.Is(err, grpcpool.ErrClosed))
		}
		if err = emptyCall(p)(t.Context()); status.Code(err) != codes.Canceled || !errors.Is(err, grpcpool.ErrClosed) {
			t.Errorf("a call on the closed pool: %v", err)
		}
	})
}

// A connection was ejected, and its successor lived for long.
func TestTheErrorOfACallDoesNotCountTheTimeOfALaterConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		first, second := grpcpooltest.NewLink(server.Dial), grpcpooltest.NewLink(server.Dial)
		var link atomic.Pointer[grpcpooltest.Link]
		link.Store(first)
		f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), grpcpool.WithDialOptions(grpc.WithIdleTimeout(20*time.Second),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return link.Load().Dial(ctx, addr) })))
		if err != nil {
			t.Fatal(err)
		}
		p := newPool(t, f, 0)
		call := emptyCall(p)
		if err := call(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second) // virtual, as what follows
		first.Blackhole()
		link.Store(second)
		for range 10 {
			time.Sleep(time.Second)
			_ = call(t.Context())
		}
		time.Sleep(time.Hour) // gRPC closes the successor, which nobody uses
		second.Refuse()
		if err = call(t.Context()); !errors.Is(err, grpcpool.ErrConnectionNotOK) || strings.Contains(err.Error(), "no connection for") {
			t.Errorf("the error is %v", err)
		}
	})
}

// moody is a factory whose NewChannel fails while err is set.
type moody struct {
	*grpcpool.Factory

	err atomic.Pointer[error]
}

func (m *moody) NewChannel(ctx context.Context) (*grpc.ClientConn, grpcpool.Inspector, error) {
	if err := m.err.Load(); err != nil {
		return nil, nil, *err
	}
	return m.Factory.NewChannel(ctx)
}

// What only the callers are told is missed by those who watch the pool.
func TestAFactoryThatMakesNoChannelIsSeenByThoseWhoWatchThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
		if err != nil {
			t.Fatal(err)
		}
		m := &moody{Factory: f}
		m.err.Store(&errScripted)
		p := newPool(t, m, 0)
		client := testpb.NewTestServiceClient(p)
		if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); !errors.Is(err, errScripted) || !errors.Is(err, grpcpool.ErrConnectionNotOK) || status.Code(err) != codes.Unavailable {
			t.Errorf("a call: %v", err)
		}
		if _, err := client.FullDuplexCall(t.Context()); !errors.Is(err, errScripted) {
			t.Errorf("a stream: %v", err)
		}
		s := p.Stats()
		if s.State != shared.StateFailing || !errors.Is(s.LastError, errScripted) || s.Calls[codes.Unavailable] != 2 {
			t.Errorf("the pool is %s, its last error %v, its calls %v", s.State, s.LastError, s.Calls)
		}
		m.err.Store(nil)
		if err := emptyCall(p)(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the connection is told of on another goroutine
		if s = p.Stats(); s.State != shared.StateReady || s.LastError != nil || s.Calls[codes.OK] != 1 {
			t.Errorf("afterwards it is %s, its last error %v, its calls %v", s.State, s.LastError, s.Calls)
		}
		if diff := cmp.Diff([]shared.EventKind{shared.EventFailing, shared.EventRecovered}, outages(s.Events)); diff != "" {
			t.Error(diff)
		}
	})
}

// gRPC's own pause grows to two minutes while calls fail.
func TestGetIsBackSoonAfterALongOutageUnderCalls(t *testing.T) {
	for name, dial := range watching {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, connected before: %v", name, before), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p, link := overLink(t, dial, 0)
					call := emptyCall(p)
					if before {
						if err := call(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
					refuse(link)
					for range 90 {
						_ = call(t.Context())
						time.Sleep(10 * time.Second) // virtual, as what follows
					}
					link.Heal()
					back := time.Now()
					for try(t.Context(), p) != nil && time.Since(back) < 3*time.Minute {
						time.Sleep(10 * time.Millisecond)
					}
					if took := time.Since(back); took > time.Second {
						t.Errorf("Get was back after %v", took)
					}
				})
			})
		}
	}
}

// A handshake that a server has begun is worth more than the idle timeout.
func TestAChannelIsNotClosedAsIdleWhileItIsConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, made := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory()), new(atomic.Int32)
		f, err := grpcpool.NewFactory(server.Target(), slowHandshakes{insecure.NewCredentials(), busyFor, made},
			grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
		if err != nil {
			t.Fatal(err)
		}
		p := newPool(t, f, 2*time.Second, shared.WithDialTimeout(4*time.Second))
		for p.Stats().DialsFailed == 0 {
			_, _ = p.Get(t.Context())
			time.Sleep(100 * time.Millisecond) // virtual, as what follows
		}
		if _, err := p.Get(t.Context()); err == nil { // begins a further attempt on the same channel
			t.Fatal("a lease before the handshake was over")
		}
		time.Sleep(busyFor / 2)
		borrow(t, p)
		if n := made.Load(); n != 1 || p.Stats().IdleClosed != 0 {
			t.Errorf("%d handshakes, %d channels closed as idle, want 1 and 0", n, p.Stats().IdleClosed)
		}
	})
}

// A NAT has forgotten the connection, and would pass another.
func TestAForgottenConnectionCostsFewCalls(t *testing.T) {
	for name, dial := range watching {
		for _, deadline := range []time.Duration{100 * time.Millisecond, 3 * time.Second} {
			t.Run(name+", "+deadline.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
					first, second := grpcpooltest.NewLink(server.Dial), grpcpooltest.NewLink(server.Dial)
					var link atomic.Pointer[grpcpooltest.Link]
					link.Store(first)
					dialer := grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return link.Load().Dial(ctx, addr) })
					f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), grpcpool.WithDialOptions(dial...), grpcpool.WithDialOptions(dialer))
					if err != nil {
						t.Fatal(err)
					}
					plain, err := grpc.NewClient(server.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()), dialer)
					if err != nil {
						t.Fatal(err)
					}
					defer plain.Close()
					failed := make(map[string]int)
					calls := map[string]func(context.Context) error{"pool": emptyCall(newPool(t, f, 0)), "plain": emptyCall(plain)}
					call := func() {
						for name, call := range calls {
							ctx, cancel := context.WithTimeout(t.Context(), deadline)
							if call(ctx) != nil {
								failed[name]++
							}
							cancel()
						}
					}
					call()
					time.Sleep(30 * time.Second) // virtual, as what follows
					first.Blackhole()
					link.Store(second)
					for range 20 {
						time.Sleep(30 * time.Second)
						call()
					}
					if failed["pool"] > 1 || failed["plain"] < 20 || second.Dials() != 1 {
						t.Errorf("of 20 calls failed: %v; %d further dials", failed, second.Dials())
					}
				})
			})
		}
	}
}

// A call that waits does not fail, and the outage is one all the same.
func TestAnOutageShowsWhileCallsWait(t *testing.T) {
	for name, dial := range watching {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, connected before: %v", name, before), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p, link := overLink(t, dial, 0, shared.WithWaitForReady())
					call := emptyCall(p)
					if before {
						if err := call(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
					refuse(link)
					time.Sleep(time.Second) // virtual, as what follows
					done := make(chan error)
					go func() { done <- call(t.Context()) }()
					time.Sleep(5 * time.Second)
					if s := p.Stats(); s.State != shared.StateFailing || !errors.Is(s.LastError, grpcpool.ErrConnectionNotOK) || s.Tests != 0 {
						t.Errorf("in the outage the pool is %s, its last error %v, and made %d tests", s.State, s.LastError, s.Tests)
					}
					link.Heal()
					if err := <-done; err != nil {
						t.Error(err)
					}
					s := p.Stats()
					if s.State != shared.StateReady || s.LastError != nil {
						t.Errorf("after it the pool is %s, its last error %v", s.State, s.LastError)
					}
					if diff := cmp.Diff([]shared.EventKind{shared.EventFailing, shared.EventRecovered}, outages(s.Events)); diff != "" {
						t.Error(diff)
					}
				})
			})
		}
	}
}

// outages are the kinds of those events that begin or end one.
func outages(events []shared.Event) (kinds []shared.EventKind) {
	for _, e := range events {
		if e.Kind == shared.EventFailing || e.Kind == shared.EventRecovered {
			kinds = append(kinds, e.Kind)
		}
	}
	return kinds
}
