package shared

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"

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

// TestRandomActionsKeepTheInvariants lets callers and faults loose on a pool for
// ten virtual minutes.
func TestRandomActionsKeepTheInvariants(t *testing.T) {
	seeds := uint64(4)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { randomActions(t, seed) })
		})
	}
}

func randomActions(t *testing.T, seed uint64) {
	server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
	inner, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(),
		grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial), grpc.WithStreamInterceptor(wildStream), grpc.WithUnaryInterceptor(wildCall)))
	if err != nil {
		t.Fatal(err)
	}
	f := &checkedFactory{Factory: inner, t: t}
	var balance eventSums
	p := New(f, 3*time.Second, WithLeakDetection(time.Hour), WithDrainTimeout(time.Hour), WithEvents(balance.note))

	var good atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(10 * time.Minute)
	for i := range uint64(16) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, i))
			for time.Now().Before(end) {
				good.Add(oneAction(t, p, r))
				time.Sleep(time.Duration(r.ExpFloat64() * float64(2*time.Second)))
			}
		})
	}
	wg.Go(func() { faults(f, server, rand.New(rand.NewPCG(seed, 99)), end) })
	wg.Wait()
	if good.Load() == 0 {
		t.Error("no action went well")
	}
	l, err := p.Get(t.Context())
	if err != nil {
		t.Errorf("Get after the faults: %v", err)
	} else {
		l.Return()
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	wantAllGone(t, p, f)
	balance.check(t, p)
}

// eventSums sums up what events report. It is read after the last one.
type eventSums struct {
	dialled, closed int
	byKind          map[EventKind]int
	last            EventKind
}

func (l *eventSums) note(e Event) {
	if l.byKind == nil {
		l.byKind = make(map[EventKind]int)
	}
	l.byKind[e.Kind] += e.Count
	l.last = e.Kind
	l.closed += e.Connections
	switch {
	case e.Kind == EventDialled:
		l.dialled += e.Count
	case event.EndsConnection(e.Kind):
		l.closed += e.Count
	}
}

// check fails unless the events of a closed pool add up.
func (l *eventSums) check(t *testing.T, p *Pool) {
	t.Helper()
	s := p.Stats()
	if l.last != EventShutdown || l.dialled == 0 || l.dialled != l.closed {
		t.Errorf("%d connections dialled, %d closed; the last event is %q; all: %v", l.dialled, l.closed, l.last, l.byKind)
	}
	for kind, want := range map[EventKind]uint64{
		EventOpened: s.Dials - s.DialsFailed, EventOpenFailed: s.DialsFailed, EventTested: s.Tests - s.TestsFailed, EventTestFailed: s.TestsFailed,
		EventRetired: s.Replaced, EventClosedIdle: s.IdleClosed, EventLeaked: s.Leaked, EventWaitedTooLong: s.TimedOut,
	} {
		if got := uint64(l.byKind[kind]); got != want {
			t.Errorf("%q was told %d times, Stats counts %d", kind, got, want)
		}
	}
}

// oneAction is what a caller does; it returns 1 if it had a connection.
func oneAction(t *testing.T, p *Pool, r *rand.Rand) int64 {
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.ExpFloat64()*float64(100*time.Millisecond)))
	defer cancel()
	defer func() {
		if bug := recover(); bug != nil && bug != any(errWild) {
			panic(bug)
		}
	}()
	switch r.IntN(4) {
	case 0: // a unary RPC on the pool
		if _, err := testpb.NewTestServiceClient(p).EmptyCall(ctx, &testpb.Empty{}); err == nil {
			return 1
		}
		return 0
	case 1: // a stream that may be abandoned
		s, err := testpb.NewTestServiceClient(p).FullDuplexCall(ctx)
		if err != nil {
			return 0
		}
		_ = s.Send(&testpb.StreamingOutputCallRequest{})
		if r.IntN(2) == 0 {
			_ = s.CloseSend()
			for err == nil {
				_, err = s.Recv()
			}
		}
		return 1
	}
	l, err := p.Get(ctx)
	if err != nil {
		return 0
	}
	hold(t, l, r)
	return 1
}

var errWild = errors.New("a bug of an interceptor")

// wildCall is an interceptor that does what those of programs do: it makes the call
// again, answers by itself, drops the options, or panics. The pool's tests are
// spared: a panic there ends the process.
func wildCall(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	choice := rand.IntN(20)
	if method == healthpb.Health_Check_FullMethodName {
		choice = -1
	}
	switch choice {
	case 0:
		panic(errWild)
	case 1:
		return nil
	case 2:
		return errWild
	case 3:
		opts = nil
	case 4:
		_ = invoker(ctx, method, request, reply, cc, opts...)
	}
	return invoker(ctx, method, request, reply, cc, opts...)
}

// wildStream is wildCall for streams. A try that it gives up may end long after the
// caller has another, or never.
func wildStream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	switch rand.IntN(10) {
	case 0:
		panic(errWild)
	case 1:
		return wild{}, nil
	case 2:
		return nil, errWild
	case 3:
		opts = nil
	case 4, 5:
		try, cancel := context.WithTimeout(ctx, rand.N(200*time.Millisecond))
		if _, err := streamer(try, desc, cc, method, opts...); err != nil {
			cancel()
			return nil, err
		}
		context.AfterFunc(try, cancel)
	case 6:
		s, err := streamer(ctx, desc, cc, method, opts...)
		if err != nil {
			return nil, err
		}
		return wild{s}, nil
	}
	return streamer(ctx, desc, cc, method, opts...)
}

// wild is a stream of an interceptor's own. Without one of gRPC's in it, it is over
// at once.
type wild struct{ grpc.ClientStream }

func (w wild) SendMsg(m any) error {
	if w.ClientStream == nil {
		return io.EOF
	}
	return w.ClientStream.SendMsg(m)
}

func (w wild) RecvMsg(m any) error {
	switch {
	case w.ClientStream == nil:
		return io.EOF
	case rand.IntN(5) == 0:
		panic(errWild)
	}
	return w.ClientStream.RecvMsg(m)
}

func (w wild) CloseSend() error {
	if w.ClientStream == nil {
		return nil
	}
	return w.ClientStream.CloseSend()
}

// hold keeps a lease for a while, looks whether it stays good, and returns it,
// perhaps twice and from two goroutines.
func hold(t *testing.T, l grpcpool.PoolClientConn, r *rand.Rand) {
	conn := l.Connection()
	c := l.(*trackedLease).c
	for range r.IntN(4) {
		if c.tally.Load()&closing != 0 || conn.GetState() == connectivity.Shutdown {
			t.Error("the channel was closed under a lease")
		}
		time.Sleep(time.Duration(r.ExpFloat64() * float64(500*time.Millisecond)))
	}
	var wg sync.WaitGroup
	for range 1 + r.IntN(2) {
		wg.Go(l.Return)
	}
	wg.Wait()
	if l.Connection() != nil {
		t.Error("a returned lease has a connection")
	}
}

// faults stops and starts the server and makes pings fail, and leaves all well.
func faults(f *checkedFactory, server *grpcpooltest.Server, r *rand.Rand, end time.Time) {
	for time.Now().Before(end) {
		time.Sleep(time.Duration(r.ExpFloat64() * float64(5*time.Second)))
		switch r.IntN(3) {
		case 0:
			server.Stop()
			time.Sleep(time.Duration(r.ExpFloat64() * float64(5*time.Second)))
			server.Start()
		case 1:
			f.bad.Store(true)
			time.Sleep(time.Duration(r.ExpFloat64() * float64(3*time.Second)))
			f.bad.Store(false)
		case 2:
			server.GracefulStop()
			server.Start()
		}
	}
	time.Sleep(2 * time.Second) // longer than the pause between dials
}

func wantAllGone(t *testing.T, p *Pool, f *checkedFactory) {
	t.Helper()
	if s := p.Stats(); s.Leases != 0 || s.Channels != 0 || s.Waiting != 0 || s.Leaked != 0 {
		t.Errorf("left at the end: %+v", s)
	}
	if n := p.borrows.fresh.Len() + p.borrows.reported.Len(); n != 0 {
		t.Errorf("%d leases still watched", n)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, conn := range f.conns {
		if conn.GetState() != connectivity.Shutdown {
			t.Errorf("channel %d of %d is open", i+1, len(f.conns))
		}
	}
	if s := p.Stats(); int(s.Dials-s.DialsFailed) != len(f.conns) {
		t.Errorf("%d dials went well by the Stats, %d by the factory", s.Dials-s.DialsFailed, len(f.conns))
	}
}
