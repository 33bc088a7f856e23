package shared

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/internal/event"
)

// checkedFactory makes real channels to a server in memory and checks that the
// pool never dials twice at a time.
type checkedFactory struct {
	*grpcpool.Factory

	t       *testing.T
	dialing atomic.Int32
	bad     atomic.Bool // pings fail

	mu    sync.Mutex // guards conns
	conns []*grpc.ClientConn
}

func (f *checkedFactory) NewInspectedConnection(ctx context.Context) (*grpc.ClientConn, grpcpool.Inspector, error) {
	defer f.dial()()
	conn, inspector, err := f.Factory.NewInspectedConnection(ctx)
	if err == nil {
		f.add(conn)
	}
	return conn, inspector, err
}

func (f *checkedFactory) NewChannel(ctx context.Context) (*grpc.ClientConn, grpcpool.Inspector, error) {
	conn, inspector, err := f.Factory.NewChannel(ctx)
	if err == nil {
		f.add(conn)
	}
	return conn, inspector, err
}

func (f *checkedFactory) Connect(ctx context.Context, conn *grpc.ClientConn, inspector grpcpool.Inspector) error {
	defer f.dial()()
	return f.Factory.Connect(ctx, conn, inspector)
}

// dial is called when a dial begins, and the func that it returns at its end.
func (f *checkedFactory) dial() func() {
	if n := f.dialing.Add(1); n != 1 {
		f.t.Errorf("%d dials at a time", n)
	}
	time.Sleep(rand.N(50 * time.Millisecond))
	return func() { f.dialing.Add(-1) }
}

func (f *checkedFactory) add(conn *grpc.ClientConn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = append(f.conns, conn)
}

func (f *checkedFactory) ConnectionOk(ctx context.Context, conn *grpc.ClientConn) error {
	if f.bad.Load() {
		return errors.New("scripted: not OK")
	}
	return f.Factory.ConnectionOk(ctx, conn)
}

// connectedOnly is a checkedFactory that is no grpcpool.ChannelFactory.
type connectedOnly struct{ *checkedFactory }

// NewChannel is not the method of a grpcpool.ChannelFactory.
func (connectedOnly) NewChannel() {}

// TestRandomActionsKeepTheInvariants lets callers and faults loose on a pool for
// ten virtual minutes, with interceptors that do what they like.
func TestRandomActionsKeepTheInvariants(t *testing.T) {
	for seed, test := range []struct {
		name          string
		opts          []Option
		drain         time.Duration
		connectedOnly bool
	}{
		{name: "as it comes", drain: time.Hour},
		{name: "over connected channels", drain: time.Second, connectedOnly: true},
		{name: "lazy", drain: 0, opts: []Option{WithLazy()}},
		{name: "wait for ready", drain: time.Second, opts: []Option{WithWaitForReady()}},
		{name: "wait for ready over connected channels", drain: time.Hour, opts: []Option{WithWaitForReady()}, connectedOnly: true},
	} {
		if testing.Short() && seed > 1 {
			break
		}
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one := newRandomTest(t, test.connectedOnly, append(test.opts, WithDrainTimeout(test.drain))...)
				one.run(uint64(seed), test.drain < time.Hour)
			})
		})
	}
}

type randomTest struct {
	callers

	server *grpcpooltest.Server
	link   *grpcpooltest.Link
	f      *checkedFactory
	events eventSums
}

func newRandomTest(t *testing.T, connected bool, opts ...Option) *randomTest {
	server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
	link := grpcpooltest.NewLink(server.Dial)
	inner, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(),
		grpcpool.WithDialOptions(link.DialOption(), grpc.WithStreamInterceptor(wildStream), grpc.WithUnaryInterceptor(wildCall)))
	if err != nil {
		t.Fatal(err)
	}
	one := &randomTest{server: server, link: link, f: &checkedFactory{Factory: inner, t: t}}
	one.events.t = t
	opts = append(opts, WithLeakDetection(time.Hour), WithEvents(one.events.note))
	var factory grpcpool.ConnectionFactory = one.f
	if connected {
		factory = connectedOnly{one.f}
	}
	one.callers = callers{t: t, p: New(factory, 3*time.Second, opts...), ended: make(map[codes.Code]uint64)}
	if got := one.p.channels == nil; got != connected {
		t.Fatalf("the pool is over connected channels only: %v", got)
	}
	return one
}

// run acts for ten minutes, and closes the pool while the callers go on. cuts is whether Close
// may end leases.
func (o *randomTest) run(seed uint64, cuts bool) {
	over := make(chan struct{})
	var wg sync.WaitGroup
	for i := range uint64(16) {
		wg.Go(func() { o.callers.run(rand.New(rand.NewPCG(seed, i)), over) })
	}
	o.faults(rand.New(rand.NewPCG(seed, 99)), time.Now().Add(10*time.Minute))
	o.isWell()
	if err := o.p.Close(); err != nil && !cuts {
		o.t.Error(err)
	}
	time.Sleep(5 * time.Second) // calls on the closed pool
	close(over)
	wg.Wait()
	time.Sleep(time.Second) // streams whose contexts have ended
	o.wantAllGone()
	o.events.check(o.p)
	o.check()
}

// faults does to the server and the network what happens to them, and leaves all well.
func (o *randomTest) faults(r *rand.Rand, end time.Time) {
	some := func(mean time.Duration) { time.Sleep(time.Duration(r.ExpFloat64() * float64(mean))) }
	for time.Now().Before(end) {
		some(5 * time.Second)
		switch r.IntN(9) {
		case 0:
			o.server.Stop()
			some(5 * time.Second)
			o.server.Start()
		case 1:
			o.f.bad.Store(true)
			some(3 * time.Second)
			o.f.bad.Store(false)
		case 2:
			o.server.GracefulStop()
			o.server.Start()
		case 3:
			o.server.GoAway()
		case 4:
			o.server.SetStreamLimit(uint32(r.IntN(4))) // 0 is none
		case 5:
			o.link.Blackhole()
			some(5 * time.Second)
			o.link.Heal()
		case 6:
			o.link.Refuse()
			o.link.Reset()
			some(3 * time.Second)
			o.link.Heal()
		case 7:
			o.link.Hang()
			some(5 * time.Second)
			o.link.Heal()
		case 8:
			o.quiet.Store(int64(o.p.now() + 8*time.Second)) // the channel is closed when idle
			time.Sleep(8 * time.Second)
		}
	}
	o.server.SetStreamLimit(0)
	o.server.GoAway()
	time.Sleep(20 * time.Second) // longer than the pauses between dials
}

// isWell fails unless the pool has recovered.
func (o *randomTest) isWell() {
	o.t.Helper()
	l, err := o.p.Get(o.t.Context())
	if err != nil {
		o.t.Errorf("Get after the faults: %v", err)
		return
	}
	defer l.Return()
	_, _ = healthpb.NewHealthClient(l.Connection()).Check(o.t.Context(), &healthpb.HealthCheckRequest{}) // which connects a lazy pool
	if s := o.p.Stats(); s.LastError != nil || s.State != StateReady || o.p.GetState() != connectivity.Ready {
		o.t.Errorf("after the faults, the pool is %q, its channel %v, and its last error %v", s.State, o.p.GetState(), s.LastError)
	}
	if o.good.Load() == 0 {
		o.t.Error("no action went well")
	}
}

func (o *randomTest) wantAllGone() {
	o.t.Helper()
	s := o.p.Stats()
	if s.Leases != 0 || s.Channels != 0 || s.Waiting != 0 || s.Leaked != 0 || s.Stuck != 0 {
		o.t.Errorf("left at the end: %d leases, %d channels, %d waiting, %d leaked, %d stuck", s.Leases, s.Channels, s.Waiting, s.Leaked, s.Stuck)
	}
	if c := o.p.closed; c != nil && c.leasesOut() != 0 {
		o.t.Errorf("%d leases out of the closed pool", c.leasesOut())
	}
	if n := o.p.borrows.fresh.Len() + o.p.borrows.reported.Len(); n != 0 {
		o.t.Errorf("%d leases still watched", n)
	}
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	for i, conn := range o.f.conns {
		if conn.GetState() != connectivity.Shutdown {
			o.t.Errorf("channel %d of %d is open", i+1, len(o.f.conns))
		}
	}
	if n := o.f.dialing.Load(); n != 0 {
		o.t.Errorf("%d dials under way", n)
	}
	// Channels that are made before they are connected may never be.
	switch well := int(s.Dials - s.DialsFailed); {
	case well > len(o.f.conns), o.p.channels == nil && well != len(o.f.conns):
		o.t.Errorf("%d dials went well by the Stats, %d by the factory", well, len(o.f.conns))
	}
	if s.IdleClosed == 0 {
		o.t.Error("no channel was closed when idle")
	}
}

// eventSums sums up what events report. It is read after the last one.
type eventSums struct {
	t *testing.T

	dialled, closed int
	byKind          map[EventKind]int
	opened          map[uint64]bool // channels
	failing         bool
	last            EventKind
}

func (l *eventSums) note(e Event) {
	if l.byKind == nil {
		l.byKind, l.opened = make(map[EventKind]int), make(map[uint64]bool)
	}
	l.byKind[e.Kind] += e.Count
	l.last = e.Kind
	l.closed += e.Connections
	switch {
	case e.Kind == EventDialled:
		l.dialled += e.Count
	case event.EndsConnection(e.Kind):
		l.closed += e.Count
	case e.Kind == EventOpened:
		if l.opened[e.Channel] {
			l.t.Errorf("channel %d was opened twice", e.Channel)
		}
		l.opened[e.Channel] = true
	case e.Kind == EventFailing, e.Kind == EventRecovered:
		if now := e.Kind == EventFailing; now == l.failing {
			l.t.Errorf("%q was told twice in a row", e.Kind)
		} else {
			l.failing = now
		}
	}
}

// check fails unless the events of a closed pool add up.
func (l *eventSums) check(p *Pool) {
	l.t.Helper()
	s := p.Stats()
	if l.last != EventShutdown || l.dialled == 0 || l.dialled != l.closed {
		l.t.Errorf("%d connections dialled, %d closed; the last event is %q; all: %v", l.dialled, l.closed, l.last, l.byKind)
	}
	for kind, want := range map[EventKind]uint64{
		EventOpened: s.Dials - s.DialsFailed, EventOpenFailed: s.DialsFailed, EventTested: s.Tests - s.TestsFailed, EventTestFailed: s.TestsFailed,
		EventRetired: s.Replaced, EventClosedIdle: s.IdleClosed, EventLeaked: s.Leaked, EventWaitedTooLong: s.TimedOut,
	} {
		if got := uint64(l.byKind[kind]); got != want {
			l.t.Errorf("%q was told %d times, Stats counts %d", kind, got, want)
		}
	}
	if l.byKind[EventFailing] == 0 || l.byKind[EventRecovered] == 0 {
		l.t.Errorf("there was no outage: %v", l.byKind)
	}
}
