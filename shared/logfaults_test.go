package shared_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// logged is a line of the log.
type logged struct {
	at    time.Duration // since the recorder was made
	level slog.Level
	msg   string
	attrs map[string]string
}

func (l logged) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %v %q", l.at, l.level, l.msg)
	for _, key := range slices.Sorted(maps.Keys(l.attrs)) {
		fmt.Fprintf(&b, " %s=%q", key, l.attrs[key])
	}
	return b.String()
}

// recorder is a slog.Handler that keeps what is logged.
type recorder struct {
	begun time.Time
	attrs []slog.Attr

	kept *keptLines
}

type keptLines struct {
	mu    sync.Mutex // guards lines
	lines []logged
}

func newRecorder() recorder { return recorder{begun: time.Now(), kept: new(keptLines)} }

func (recorder) Enabled(context.Context, slog.Level) bool { return true }

func (r recorder) WithGroup(string) slog.Handler { return r }

func (r recorder) WithAttrs(attrs []slog.Attr) slog.Handler {
	r.attrs = append(slices.Clone(r.attrs), attrs...)
	return r
}

func (r recorder) Handle(_ context.Context, line slog.Record) error {
	l := logged{at: line.Time.Sub(r.begun), level: line.Level, msg: line.Message, attrs: make(map[string]string)}
	note := func(a slog.Attr) bool {
		if _, twice := l.attrs[a.Key]; twice {
			a.Key += " twice"
		}
		l.attrs[a.Key] = a.Value.String()
		return true
	}
	for _, a := range r.attrs {
		note(a)
	}
	line.Attrs(note)
	r.kept.mu.Lock()
	defer r.kept.mu.Unlock()
	r.kept.lines = append(r.kept.lines, l)
	return nil
}

// from are the lines of a level, or above, so far.
func (r recorder) from(level slog.Level) (some []logged) {
	r.kept.mu.Lock()
	defer r.kept.mu.Unlock()
	for _, l := range r.kept.lines {
		if l.level >= level {
			some = append(some, l)
		}
	}
	return some
}

// faulty is a server that can fail in every way, and the way to it.
type faulty struct {
	*mute

	link *grpcpooltest.Link
}

// client is what a fault is tried on.
type client struct {
	cc  grpc.ClientConnInterface
	get func(context.Context) (grpcpool.PoolClientConn, error) // nil on a channel of package scale
}

// use calls, and borrows if it can, twice a second until stop. Nobody waits for longer than
// a second.
func (c client) use() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	every := func(f func(context.Context)) {
		wg.Go(func() {
			for ctx.Err() == nil {
				limited, end := context.WithTimeout(ctx, time.Second)
				f(limited)
				end()
				time.Sleep(500 * time.Millisecond) // virtual
			}
		})
	}
	every(func(ctx context.Context) { _ = emptyCall(c.cc)(ctx) })
	if c.get != nil {
		every(func(ctx context.Context) {
			if l, err := c.get(ctx); err == nil {
				_ = emptyCall(l.Connection())(ctx)
				l.Return()
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// logFaults are faults, what happens in each, and how many lines it should make at Warn or
// above, and at Info.
var logFaults = []struct {
	name       string
	creds      credentials.TransportCredentials
	server     []grpcpooltest.Option
	dial       []grpc.DialOption
	opts       []shared.Option
	script     func(t *testing.T, f faulty, c client)
	warn, info int
	alone      []int // the same for package scale alone; nil: as for the pool
}{
	{name: "none", script: func(_ *testing.T, _ faulty, c client) {
		stop := c.use()
		time.Sleep(time.Minute)
		stop()
		time.Sleep(10 * time.Minute)
	}},
	{name: "the server is stopped and comes back", warn: 1, info: 1, script: func(_ *testing.T, f faulty, c client) {
		defer c.use()()
		time.Sleep(10 * time.Second)
		f.Stop()
		time.Sleep(30 * time.Second)
		f.Start()
		time.Sleep(30 * time.Second)
	}},
	{name: "the server is restarted at once", warn: 1, script: func(_ *testing.T, f faulty, c client) {
		defer c.use()()
		time.Sleep(10 * time.Second)
		f.Stop()
		f.Start()
		time.Sleep(30 * time.Second)
	}},
	{name: "the server is restarted gracefully", script: func(_ *testing.T, f faulty, c client) {
		defer c.use()()
		time.Sleep(10 * time.Second)
		f.GoAway()
		time.Sleep(30 * time.Second)
	}},
	{name: "an idle connection is cut", script: func(_ *testing.T, f faulty, c client) {
		stop := c.use()
		time.Sleep(10 * time.Second)
		stop()
		time.Sleep(10 * time.Second)
		f.link.Reset()
		time.Sleep(10 * time.Minute)
		c.use()()
		time.Sleep(10 * time.Second)
	}},
	{name: "refused from the start", warn: 1, info: 1, script: func(_ *testing.T, f faulty, c client) {
		f.link.Refuse()
		defer c.use()()
		time.Sleep(30 * time.Second)
		f.link.Heal()
		time.Sleep(30 * time.Second)
	}},
	{name: "the network is gone for half a minute", warn: 1, info: 1, script: func(_ *testing.T, f faulty, c client) {
		defer c.use()()
		time.Sleep(10 * time.Second)
		f.link.Blackhole()
		time.Sleep(30 * time.Second)
		f.link.Heal()
		time.Sleep(30 * time.Second)
	}},
	{name: "a blackhole from the start", warn: 1, info: 1, script: func(_ *testing.T, f faulty, c client) {
		f.link.Blackhole()
		defer c.use()()
		time.Sleep(30 * time.Second)
		f.link.Heal()
		time.Sleep(30 * time.Second)
	}},
	{name: "the server hangs", warn: 1, info: 1, script: func(_ *testing.T, f faulty, c client) {
		defer c.use()()
		time.Sleep(10 * time.Second)
		f.link.Hang()
		time.Sleep(30 * time.Second)
		f.link.Heal()
		time.Sleep(30 * time.Second)
	}},
	{name: "a connection is dead and the server well", warn: 1, script: func(_ *testing.T, f faulty, c client) {
		defer c.use()()
		time.Sleep(10 * time.Second)
		f.link.Hang()
		f.link.Heal()
		time.Sleep(30 * time.Second)
	}},
	{name: "the health service is silent", warn: 1, alone: []int{0, 0}, script: func(_ *testing.T, f faulty, c client) {
		defer c.use()()
		time.Sleep(10 * time.Second)
		f.hangs.Store(true)
		time.Sleep(30 * time.Second)
	}},
	{
		name: "every stream is taken", warn: 1,
		server: []grpcpooltest.Option{grpcpooltest.WithStreamLimit(1)}, dial: []grpc.DialOption{scale.WithMaxConnections(1)},
		script: func(t *testing.T, _ faulty, c client) {
			stream, err := testpb.NewTestServiceClient(c.cc).FullDuplexCall(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = stream.CloseSend() }()
			defer c.use()()
			time.Sleep(30 * time.Second)
		},
	},
	{name: "a leak", warn: 1, alone: []int{0, 0}, opts: []shared.Option{shared.WithLeakDetection(time.Second)}, script: func(t *testing.T, _ faulty, c client) {
		if c.get != nil {
			l, err := c.get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Return()
		}
		time.Sleep(30 * time.Second)
	}},
	{name: "a server of plaintext is asked for TLS", creds: credentials.NewTLS(nil), warn: 1, script: func(_ *testing.T, _ faulty, c client) {
		defer c.use()()
		time.Sleep(30 * time.Second)
	}},
}

var _ = healthpb.Health_Check_FullMethodName

func TestAFaultIsOneLine(t *testing.T) {
	for _, tc := range logFaults {
		t.Run(tc.name, func(t *testing.T) {
			for _, alone := range []bool{false, true} {
				var log recorder
				synctest.Test(t, func(t *testing.T) {
					log = newRecorder()
					f := faulty{mute: newMute(t, false, tc.server...)}
					f.link = grpcpooltest.NewLink(f.Dial)
					creds := tc.creds
					if creds == nil {
						creds = insecure.NewCredentials()
					}
					dial := append([]grpc.DialOption{grpc.WithContextDialer(f.link.Dial)}, tc.dial...)
					logger := slog.New(log)
					if alone {
						cc, err := scale.NewClient(f.Target(), append(dial, grpc.WithTransportCredentials(creds), scale.WithLogger(logger))...)
						if err != nil {
							t.Fatal(err)
						}
						defer cc.Close()
						tc.script(t, f, client{cc: cc})
						return
					}
					factory, err := grpcpool.NewFactory(f.Target(), creds, grpcpool.WithDialOptions(dial...), grpcpool.WithLogger(logger))
					if err != nil {
						t.Fatal(err)
					}
					p := shared.New(factory, 0, append(tc.opts, shared.WithName("orders"), shared.WithLogger(logger))...)
					defer p.Close()
					tc.script(t, f, client{cc: p, get: p.Get})
				})
				t.Logf("alone %v", alone)
				for _, l := range log.from(slog.LevelInfo) {
					t.Log(l)
				}
			}
		})
	}
}
