package shared_test

import (
	"context"
	"log/slog"
	"strings"
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

// trap holds whoever comes, until it is opened, if it is set.
type trap struct {
	set    atomic.Bool
	opened chan struct{}
}

func newTrap() *trap { return &trap{opened: make(chan struct{})} }

func (h *trap) hold() {
	if h.set.Load() {
		<-h.opened
	}
}

// closes closes p and checks how long that takes and what the error says.
func closes(t *testing.T, p *shared.Pool, within time.Duration, says ...string) {
	t.Helper()
	start := time.Now()
	err := p.Close()
	if took := time.Since(start); took > within {
		t.Errorf("Close took %v, want %v at most", took, within)
	}
	for _, want := range says {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Close: %v, want it to say %q", err, want)
		}
	}
}

// Whatever of the program's does not return, Close does, and says what it left.
func TestCloseReturnsThoughTheProgramsCodeDoesNot(t *testing.T) {
	const drain = 2 * time.Second
	handler := func(h *trap) slog.Handler { return holding{slog.DiscardHandler, h} }
	for name, test := range map[string]struct {
		factory func(*trap) grpcpool.FactoryOption
		pool    func(*trap) shared.Option
		want    string
	}{
		"a ping":        {factory: func(h *trap) grpcpool.FactoryOption { return grpcpool.WithPing(h.ping) }, want: "did not return when their context ended: 1"},
		"an event hook": {pool: func(h *trap) shared.Option { return shared.WithEvents(func(shared.Event) { h.hold() }) }, want: "an event hook"},
		"a log handler": {pool: func(h *trap) shared.Option { return shared.WithLogger(slog.New(handler(h))) }, want: "the log's handler"},
		"scale.WithEvents": {factory: func(h *trap) grpcpool.FactoryOption {
			return grpcpool.WithDialOptions(scale.WithEvents(func(scale.Event) { h.hold() }))
		}, want: "the closing of channels:"},
		"a tracer's end": {pool: func(h *trap) shared.Option { return shared.WithTracer(trappedTracer{h}) }, want: "a test or a dial"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newTrap()
				defer close(h.opened)
				server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
				opts := []grpcpool.FactoryOption{grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial))}
				if test.factory != nil {
					opts = append(opts, test.factory(h))
				}
				poolOpts := []shared.Option{shared.WithDrainTimeout(drain)}
				if test.pool != nil {
					poolOpts = append(poolOpts, test.pool(h))
				}
				f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), opts...)
				if err != nil {
					t.Fatal(err)
				}
				p := shared.New(f, 0, poolOpts...)
				borrow(t, p)
				h.set.Store(true)
				server.GracefulStop() // which is told by scale's events, and the pool's
				server.Start()
				time.Sleep(time.Second)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if l, err := p.Get(ctx); err == nil {
					l.Return()
				}
				closes(t, p, drain+2*time.Second, test.want)
				closes(t, p, drain+2*time.Second)
			})
		})
	}
}

func TestCloseReturnsThoughTheLogsLevelDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTrap()
		defer close(h.opened)
		p := shared.New(&fakeFactory{}, 0, shared.WithLogger(slog.New(asking{slog.DiscardHandler, h})), shared.WithDrainTimeout(time.Second))
		borrow(t, p)
		h.set.Store(true)
		closes(t, p, 3*time.Second, "still running")
	})
}

// asking is a log handler that is held up when it is asked for its level.
type asking struct {
	slog.Handler

	h *trap
}

func (l asking) Enabled(context.Context, slog.Level) bool {
	l.h.hold()
	return false
}

func (h *trap) ping(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
	h.hold()
	return grpcpool.HealthPing(ctx, conn)
}

// holding is a log handler that is held up.
type holding struct {
	slog.Handler

	h *trap
}

func (holding) Enabled(context.Context, slog.Level) bool { return true }

func (l holding) Handle(context.Context, slog.Record) error {
	l.h.hold()
	return nil
}

type trappedTracer struct{ h *trap }

func (r trappedTracer) Start(ctx context.Context, _ string, op shared.Op) (context.Context, func(error)) {
	return ctx, func(error) {
		if op == shared.OpTest {
			r.h.hold()
		}
	}
}

// A test that never returns is a failed one after its time. The pool goes on, says
// what it has left alone, and counts it until it returns.
func TestAPingThatIgnoresItsContextIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTrap()
		var seen told
		f := &fakeFactory{}
		p := newPool(t, f, 0, shared.WithEvents(seen.note))
		borrow(t, p)
		time.Sleep(time.Minute)
		h.set.Store(true)
		f.script(nil, func(context.Context, *grpc.ClientConn) error { h.hold(); return nil })
		start := time.Now()
		borrow(t, p) // by a channel that is dialled instead
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		f.wantDials(t, 2)
		if s := p.Stats(); s.Stuck != 1 || s.TestsFailed != 1 {
			t.Errorf("%d stuck, %d tests failed, want 1 and 1", s.Stuck, s.TestsFailed)
		}
		synctest.Wait() // events are delivered on a goroutine of the pool
		if e := find(seen.all(), shared.EventStuck); !strings.Contains(e.Text, "has not returned though its context has ended") {
			t.Errorf("the event says %q", e.Text)
		}
		close(h.opened)
		synctest.Wait()
		if n := p.Stats().Stuck; n != 0 {
			t.Errorf("%d stuck though all have returned", n)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (f *fakeFactory) wantDials(t *testing.T, want int) {
	t.Helper()
	if n, _ := f.seen(); n != want {
		t.Errorf("%d dials, want %d", n, want)
	}
}

func TestAChannelThatComesTooLateIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTrap()
		h.set.Store(true)
		f := &fakeFactory{}
		f.script(func(context.Context) error { h.hold(); return nil }, nil)
		p := newPool(t, f, 0, shared.WithDialTimeout(time.Second))
		if _, err := p.Get(t.Context()); err == nil || !strings.Contains(err.Error(), "NewConnection") {
			t.Errorf("Get: %v", err)
		}
		close(h.opened)
		synctest.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.conns) != 1 || !closed(f.conns[0]) {
			t.Errorf("%d channels, want 1, closed", len(f.conns))
		}
	})
}

// Calls that are left alone do not pile up without bound.
func TestOnlySoManyCallsAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTrap()
		h.set.Store(true)
		f := &fakeFactory{}
		f.script(func(context.Context) error { h.hold(); return nil }, nil)
		p := newPool(t, f, 0, shared.WithDialTimeout(time.Second))
		for range 100 {
			if _, err := p.Get(t.Context()); err == nil {
				t.Fatal("a lease")
			}
			time.Sleep(time.Second)
		}
		if d, _ := f.seen(); d != 8 || p.Stats().Stuck != 8 {
			t.Errorf("%d dials, %d stuck, want 8 of both", d, p.Stats().Stuck)
		}
		h.set.Store(false)
		close(h.opened)
		time.Sleep(5 * time.Second) // virtual: the longest pause after an outage of minutes
		borrow(t, p)
	})
}

// The harm that this must not do: a call that needs a moment after its context has
// ended is an ordinary one.
func TestATestThatEndsALittleLateIsNotStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{}
		p := newPool(t, f, 0)
		borrow(t, p)
		time.Sleep(time.Minute)
		f.script(nil, func(ctx context.Context, _ *grpc.ClientConn) error {
			<-ctx.Done()
			time.Sleep(400 * time.Millisecond)
			return nil // good, at last
		})
		borrow(t, p)
		f.wantDials(t, 1)
		if s := p.Stats(); s.Stuck != 0 || s.TestsFailed != 0 {
			t.Errorf("%d stuck, %d tests failed", s.Stuck, s.TestsFailed)
		}
	})
}
