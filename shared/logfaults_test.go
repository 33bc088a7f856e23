package shared_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

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

	mu  sync.Mutex         // guards way
	way *grpcpooltest.Link // that dials take
}

func newFaulty(t *testing.T, opts []grpcpooltest.Option) *faulty {
	f := &faulty{mute: newMute(t, false, opts...)}
	f.link = grpcpooltest.NewLink(f.Dial)
	f.way = f.link
	return f
}

func (f *faulty) dial(ctx context.Context, address string) (net.Conn, error) {
	f.mu.Lock()
	way := f.way
	f.mu.Unlock()
	return way.Dial(ctx, address)
}

// loseTheWay drops everything on the connections that are open. Others are well.
func (f *faulty) loseTheWay() {
	f.link.Blackhole()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.way = grpcpooltest.NewLink(f.Dial)
}

// client is what a fault is tried on.
type client struct {
	cc  grpc.ClientConnInterface
	get func(context.Context) (grpcpool.PoolClientConn, error) // nil: nobody borrows
	md  metadata.MD                                            // of all calls
}

// use calls, and borrows if it can, twice a second until stop.
func (c client) use() (stop func()) { return c.useEvery(500 * time.Millisecond) }

// useEvery calls, and borrows if it can, at a pace until stop. Nobody waits for longer than a
// second.
func (c client) useEvery(pace time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(context.Background(), c.md))
	var wg sync.WaitGroup
	every := func(f func(context.Context)) {
		wg.Go(func() {
			for ctx.Err() == nil {
				limited, end := context.WithTimeout(ctx, time.Second)
				f(limited)
				end()
				time.Sleep(pace) // virtual
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

// useOnce borrows if it can, and otherwise calls.
func (c client) useOnce() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if c.get == nil {
		_ = emptyCall(c.cc)(ctx)
		return
	}
	if l, err := c.get(ctx); err == nil {
		l.Return()
	}
}

// logFault is a fault, what happens in it, and how many lines it should make at Warn or above,
// and at Info.
type logFault struct {
	name       string
	creds      credentials.TransportCredentials
	server     []grpcpooltest.Option
	dial       []grpc.DialOption
	opts       []shared.Option
	script     func(t *testing.T, f *faulty, c client)
	warn, info int
	noLeases   []int       // the same where nobody borrows; nil: as for a pool with leases
	metadata   metadata.MD // of all calls
}

var logFaults = []logFault{
	{name: "none", script: func(_ *testing.T, _ *faulty, c client) {
		stop := c.use()
		time.Sleep(time.Minute)
		stop()
		time.Sleep(10 * time.Minute)
	}},
	{name: "the server is stopped and comes back", warn: 1, info: 1, script: func(_ *testing.T, f *faulty, c client) {
		defer c.use()()
		time.Sleep(10 * time.Second)
		f.Stop()
		time.Sleep(30 * time.Second)
		f.Start()
		time.Sleep(30 * time.Second)
	}},
	{name: "the server is restarted at once", warn: 1, script: func(_ *testing.T, f *faulty, c client) {
		defer c.use()()
		time.Sleep(10 * time.Second)
		f.Stop()
		f.Start()
		time.Sleep(30 * time.Second)
	}},
	{name: "the server is restarted gracefully", script: func(_ *testing.T, f *faulty, c client) {
		defer c.use()()
		time.Sleep(10 * time.Second)
		f.GoAway()
		time.Sleep(30 * time.Second)
	}},
	{name: "an idle connection is cut", script: func(_ *testing.T, f *faulty, c client) {
		stop := c.use()
		time.Sleep(10 * time.Second)
		stop()
		time.Sleep(10 * time.Second)
		f.link.Reset()
		time.Sleep(10 * time.Minute)
		c.use()()
		time.Sleep(10 * time.Second)
	}},
	{name: "refused from the start", warn: 1, info: 1, script: func(_ *testing.T, f *faulty, c client) {
		f.link.Refuse()
		defer c.use()()
		time.Sleep(30 * time.Second)
		f.link.Heal()
		time.Sleep(30 * time.Second)
	}},
	{name: "the network is gone for half a minute", warn: 1, info: 1, script: func(_ *testing.T, f *faulty, c client) {
		defer c.use()()
		time.Sleep(10 * time.Second)
		f.link.Blackhole()
		time.Sleep(30 * time.Second)
		f.link.Heal()
		time.Sleep(30 * time.Second)
	}},
	{name: "a blackhole from the start", warn: 1, info: 1, script: func(_ *testing.T, f *faulty, c client) {
		f.link.Blackhole()
		defer c.use()()
		time.Sleep(30 * time.Second)
		f.link.Heal()
		time.Sleep(30 * time.Second)
	}},
	{name: "the server hangs", warn: 1, info: 1, script: func(_ *testing.T, f *faulty, c client) {
		defer c.use()()
		time.Sleep(10 * time.Second)
		f.link.Hang()
		time.Sleep(30 * time.Second)
		f.link.Heal()
		time.Sleep(30 * time.Second)
	}},
	{name: "a connection is dead and the server well", warn: 1, script: func(_ *testing.T, f *faulty, c client) {
		defer c.use()()
		time.Sleep(10 * time.Second)
		f.loseTheWay()
		time.Sleep(30 * time.Second)
	}},
	{name: "the health service is silent once", script: func(_ *testing.T, f *faulty, c client) {
		c.useOnce() // dials
		for _, hangs := range []bool{true, false, false, false, false} {
			f.hangs.Store(hangs)
			time.Sleep(47 * time.Second) // so that the channel has no proof, and is tested
			c.useOnce()
		}
	}},
	{name: "the health service is silent", warn: 1, info: 1, noLeases: []int{0, 0}, script: func(_ *testing.T, f *faulty, c client) {
		for _, hangs := range []bool{false, true, false} {
			f.hangs.Store(hangs)
			for range 5 {
				time.Sleep(47 * time.Second) // so that the channel has no proof, once at least, and is tested
				c.useOnce()
			}
		}
	}},
	{
		name: "every stream is taken", warn: 1,
		server: []grpcpooltest.Option{grpcpooltest.WithStreamLimit(1)}, dial: []grpc.DialOption{scale.WithMaxConnections(1)},
		script: func(t *testing.T, _ *faulty, c client) {
			stream, err := testpb.NewTestServiceClient(c.cc).FullDuplexCall(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = stream.CloseSend() }()
			defer c.use()()
			time.Sleep(30 * time.Second)
		},
	},
	{name: "a leak", warn: 1, noLeases: []int{0, 0}, opts: []shared.Option{shared.WithLeakDetection(time.Second)}, script: func(t *testing.T, _ *faulty, c client) {
		if c.get != nil {
			l, err := c.get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Return()
		}
		time.Sleep(30 * time.Second)
	}},
	{
		name: "the server's certificate is of an unknown authority", creds: credentials.NewTLS(nil),
		server: []grpcpooltest.Option{grpcpooltest.WithMutualTLS()}, warn: 1,
		script: func(_ *testing.T, _ *faulty, c client) {
			defer c.use()()
			time.Sleep(30 * time.Second)
		},
	},
	{name: "an outage of an hour", warn: 1 + 6, info: 1, script: func(_ *testing.T, f *faulty, c client) {
		defer c.useEvery(5 * time.Second)()
		time.Sleep(10 * time.Second)
		f.Stop()
		time.Sleep(65 * time.Minute)
		f.Start()
		time.Sleep(time.Minute)
	}},
	{name: "the server is restarted every twenty seconds", warn: 5 + 5, script: func(_ *testing.T, f *faulty, c client) {
		defer c.useEvery(2 * time.Second)()
		for range 45 { // 15 minutes
			time.Sleep(20*time.Second + 300*time.Millisecond) // between two calls
			f.Stop()
			f.Start()
		}
	}},
	{name: "the server is gone for ten seconds, and there for ten", warn: 5 + 5, info: 5 + 5, script: func(_ *testing.T, f *faulty, c client) {
		defer c.useEvery(2 * time.Second)()
		for range 45 { // 15 minutes
			time.Sleep(10 * time.Second)
			f.Stop()
			time.Sleep(10 * time.Second)
			f.Start()
		}
	}},
	{name: "the server comes and goes, and then stays away", warn: 5 + 1, info: 5, script: func(_ *testing.T, f *faulty, c client) {
		defer c.use()()
		for range 7 {
			time.Sleep(10 * time.Second)
			f.Stop()
			time.Sleep(10 * time.Second)
			f.Start()
		}
		time.Sleep(10 * time.Second)
		f.Stop()
		time.Sleep(5 * time.Minute)
	}},
	{name: "a server of plaintext is asked for TLS", creds: credentials.NewTLS(nil), warn: 1, script: func(_ *testing.T, _ *faulty, c client) {
		defer c.use()()
		time.Sleep(30 * time.Second)
	}},
}

// What a fault is tried on.
const (
	leases  = "a pool with leases and calls"
	calls   = "a pool with calls only"
	channel = "a channel of package scale alone"
)

var everyUse = []string{leases, calls, channel}

// run plays the script of a fault.
func run(t *testing.T, tc logFault, on string) (log recorder) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log = newRecorder()
		f, logger := newFaulty(t, tc.server), slog.New(log)
		creds := tc.creds
		if creds == nil {
			creds = insecure.NewCredentials()
		}
		dial := append([]grpc.DialOption{grpc.WithContextDialer(f.dial)}, tc.dial...)
		if on == channel {
			cc, err := scale.NewClient(f.Target(), append(dial, grpc.WithTransportCredentials(creds), scale.WithLogger(logger))...)
			if err != nil {
				t.Fatal(err)
			}
			defer cc.Close()
			tc.script(t, f, client{cc: cc, md: tc.metadata})
			return
		}
		factory, err := grpcpool.NewFactory(f.Target(), creds, grpcpool.WithDialOptions(dial...), grpcpool.WithLogger(logger))
		if err != nil {
			t.Fatal(err)
		}
		p := shared.New(factory, 0, append(tc.opts, shared.WithName("orders"), shared.WithLogger(logger))...)
		defer p.Close()
		c := client{cc: p, md: tc.metadata}
		if on == leases {
			c.get = p.Get
		}
		tc.script(t, f, c)
	})
	return log
}

// wantLine fails unless the line has what every line of a pool, or of a channel, has.
func wantLine(t *testing.T, l logged, on string) {
	t.Helper()
	if l.attrs["target"] != "passthrough:///localhost" || on != channel && l.attrs["pool"] != "orders" {
		t.Errorf("the line does not say whose it is: %v", l)
	}
	if l.level >= slog.LevelWarn && len(l.attrs["hint"]) < 10 {
		t.Errorf("the line does not say what to do: %v", l)
	}
	for key, value := range l.attrs {
		if !slices.Contains(logKeys, key) {
			t.Errorf("%q is no key of the library: %v", key, l)
		}
		if key != "borrowed_by" && strings.ContainsFunc(value, unicode.IsControl) {
			t.Errorf("%q has unprintable characters: %q", key, value)
		}
	}
}

// logKeys are the keys that DESIGN.md lists.
var logKeys = []string{"pool", "target", "channel", "address", "connection", "took", "age", "outage", "count", "error", "hint", "suppressed", "borrowed_by"}

func TestAFaultIsOneLine(t *testing.T) {
	for _, tc := range logFaults {
		t.Run(tc.name, func(t *testing.T) {
			for _, on := range everyUse {
				log := run(t, tc, on)
				want := [2]int{tc.warn, tc.info}
				if on != leases && tc.noLeases != nil {
					want = [2]int(tc.noLeases)
				}
				lines := log.from(slog.LevelInfo)
				warns := len(log.from(slog.LevelWarn))
				if got := [2]int{warns, len(lines) - warns}; got != want {
					t.Errorf("%s: %d lines at Warn and %d at Info, want %d and %d:", on, got[0], got[1], want[0], want[1])
				}
				for _, l := range lines {
					t.Log(l)
				}
				for _, l := range log.from(slog.LevelDebug) {
					wantLine(t, l, on)
				}
			}
		})
	}
}
