package shared_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/shared"
)

// mute is a server whose health service hangs while hangs is set.
type mute struct {
	*grpcpooltest.Server

	hangs atomic.Bool
	asked atomic.Int32
}

func newMute(t *testing.T, hangs bool, opts ...grpcpooltest.Option) *mute {
	t.Helper()
	m := new(mute)
	m.hangs.Store(hangs)
	m.Server = grpcpooltest.NewServer(t, append(opts, grpcpooltest.WithInMemory(), grpcpooltest.WithServerOptions(grpc.UnaryInterceptor(
		func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if info.FullMethod == healthpb.Health_Check_FullMethodName {
				m.asked.Add(1)
				if m.hangs.Load() {
					<-ctx.Done()
					time.Sleep(time.Second) // virtual: or its answer might come at the very end of the client's patience
				}
			}
			return handler(ctx, request)
		})))...)
	return m
}

// pool is a pool over m, and what its factory logs.
func (m *mute) pool(t *testing.T, dial grpcpooltest.DialFunc, opts ...grpcpool.FactoryOption) (*shared.Pool, *lines) {
	t.Helper()
	log := new(lines)
	opts = append(opts, grpcpool.WithDialOptions(grpc.WithContextDialer(dial)), grpcpool.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
	f, err := grpcpool.NewFactory(m.Target(), insecure.NewCredentials(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	return newPool(t, f, 0), log
}

// lines keeps what is logged.
type lines struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) count(words string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), words)
}

// Row 35 of the fault matrix. A plain channel completes every call, as it asks for nobody's
// health.
func TestAHealthServiceThatNeverAnswersCostsNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newMute(t, true)
		p, log := server.pool(t, server.Dial)
		plain, err := grpc.NewClient(server.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(server.Dial))
		if err != nil {
			t.Fatal(err)
		}
		defer plain.Close()
		for _, quiet := range []time.Duration{0, time.Second, 10 * time.Second, time.Hour, 2 * time.Second, 12 * time.Hour} {
			time.Sleep(quiet) // virtual
			for _, cc := range []grpc.ClientConnInterface{plain, p} {
				if err := emptyCall(cc)(t.Context()); err != nil {
					t.Errorf("a call on %T after %v: %v", cc, quiet, err)
				}
			}
			time.Sleep(quiet)
			begun := time.Now()
			borrow(t, p)
			if took := time.Since(begun); took > time.Second {
				t.Errorf("Get after %v took %v", quiet, took)
			}
		}
		if s := p.Stats(); s.Dials != 1 || s.State != shared.StateReady {
			t.Errorf("%d channels, %s, want 1, ready", s.Dials, s.State)
		}
		if n := log.count("the health service is silent"); n != 1 || log.count("level=WARN") != 1 || log.count("WithPing") != 1 {
			t.Errorf("%d warnings, want one: %s", n, log.text.String())
		}
	})
}

// It may begin to hang, and a lost connection prompts a test then.
func TestAHealthServiceThatStopsAnsweringCostsNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newMute(t, false)
		p, log := server.pool(t, server.Dial)
		borrow(t, p)
		for range 3 {
			server.hangs.Store(true)
			for range 5 {
				time.Sleep(20 * time.Second) // virtual
				borrow(t, p)
			}
			server.Stop()
			server.Start()
			time.Sleep(5 * time.Second) // virtual
			borrow(t, p)
			server.hangs.Store(false)
			for range 5 {
				time.Sleep(47 * time.Second)
				borrow(t, p)
			}
		}
		if s := p.Stats(); s.Dials != 1 || s.State != shared.StateReady {
			t.Errorf("%d channels, %s, want 1, ready", s.Dials, s.State)
		}
		if n := log.count("the health service is silent"); n != 3 {
			t.Errorf("%d warnings, want one each time that it fell silent, 3", n)
		}
	})
}

// The harm that this must not do: a connection that is dead is refused as ever.
func TestADeadConnectionIsNotTakenForOneWhoseHealthServiceHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newMute(t, true)
		link := grpcpooltest.NewLink(server.Dial)
		p, _ := server.pool(t, link.Dial)
		time.AfterFunc(100*time.Millisecond, link.Blackhole) // while the first ping is under way
		if _, err := p.Get(t.Context()); err == nil {
			t.Error("a lease on a connection that was dead")
		}
		link.Heal()
		borrowSoon(t, p)
		time.Sleep(time.Minute) // virtual
		link.Blackhole()
		time.Sleep(6 * time.Second) // virtual: after 5 s the last proof is not enough for a call either
		if _, err := p.Get(t.Context()); err == nil {
			t.Error("a lease on a connection that had died")
		}
	})
}

// borrowSoon borrows as soon as the pool has a channel again.
func borrowSoon(t *testing.T, p *shared.Pool) {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) { // virtual
		l, err := p.Get(t.Context())
		if err == nil {
			l.Return()
			return
		}
		if time.Since(begun) > 20*time.Second {
			t.Fatal(err)
		}
	}
}

// Whoever asks for an answer gets to know that there is none.
func TestAProgramsOwnPingHasToBeAnswered(t *testing.T) {
	for name, opt := range map[string]grpcpool.FactoryOption{
		"WithPing":        grpcpool.WithPing(grpcpool.HealthPing),
		"WithHealthCheck": grpcpool.WithHealthCheck(""),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := newMute(t, true)
				p, _ := server.pool(t, server.Dial, opt)
				if _, err := p.Get(t.Context()); err == nil {
					t.Error("a lease though the ping was never answered")
				}
				server.hangs.Store(false)
				borrowSoon(t, p)
				server.hangs.Store(true)
				time.Sleep(time.Minute) // virtual
				if _, err := p.Get(t.Context()); err == nil {
					t.Error("a lease though the test was not answered")
				}
			})
		})
	}
}

// A Get after quiet costs one round trip, and none where the channel has proof.
func TestALeaseAfterQuietCostsOneRoundTrip(t *testing.T) {
	const oneWay = 40 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		server := newMute(t, false)
		link := grpcpooltest.NewLink(server.Dial)
		p, _ := server.pool(t, link.Dial)
		link.Delay(oneWay)
		borrow(t, p)
		for _, quiet := range []time.Duration{2 * time.Second, 10 * time.Second, 20 * time.Minute} {
			time.Sleep(quiet + 300*time.Millisecond) // virtual
			begun := time.Now()
			l := get(t, p)
			if took := time.Since(begun); took != 2*oneWay && took != 0 {
				t.Errorf("Get after %v took %v, want %v", quiet, took, 2*oneWay)
			}
			begun = time.Now()
			if _, err := testpb.NewTestServiceClient(l.Connection()).EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begun); took != 2*oneWay {
				t.Errorf("and a call on it %v, want %v", took, 2*oneWay)
			}
			begun = time.Now()
			borrow(t, p) // the channel has seen a call answered
			if took := time.Since(begun); took != 0 {
				t.Errorf("Get after a call took %v, want none", took)
			}
			l.Return()
		}
	})
}
