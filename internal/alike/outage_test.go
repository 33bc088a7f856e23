package alike_test

import (
	"context"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/internal/jitter"
)

const (
	outage    = 10 * time.Second
	callPause = 100 * time.Millisecond // after each call of a caller
)

// tally counts calls by their status.
type tally map[codes.Code]uint64

func (t tally) failed() (n uint64) {
	for code, calls := range t {
		if code != codes.OK {
			n += calls
		}
	}
	return n
}

// inOutage is in the context of a caller's call, as the stats handler has tagged it.
type inOutage struct{}

// counter is what a program counts its calls with: an interceptor and a stats handler.
type counter struct {
	mu                          sync.Mutex // guards what follows
	callers, interceptor, stats tally
	again                       uint64 // attempts that repeat what no server has seen
	others                      uint64 // attempts of calls that the program did not make
}

func newCounter() *counter {
	return &counter{callers: make(tally), interceptor: make(tally), stats: make(tally)}
}

func (c *counter) add(t tally, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t[status.Code(err)]++
}

func (c *counter) intercept(ctx context.Context, called string, in, out any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := next(ctx, called, in, out, cc, opts...)
	if called == method {
		c.add(c.interceptor, err)
	}
	return err
}

func (c *counter) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	if info.FullMethodName != method {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.others++
		return ctx
	}
	return context.WithValue(ctx, inOutage{}, true)
}

// HandleRPC counts the attempts that end. One that repeats another has that one not counted:
// they are one call.
func (c *counter) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if ctx.Value(inOutage{}) == nil {
		return
	}
	switch event := event.(type) {
	case *stats.Begin:
		if event.IsTransparentRetryAttempt {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.again++
		}
	case *stats.End:
		c.add(c.stats, event.Error)
	}
}

func (*counter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*counter) HandleConn(context.Context, stats.ConnStats)                       {}

// suffering is what an outage was like.
type suffering struct {
	*counter

	pool  tally // as Stats has it; nil if it was no pool
	dials int64 // while the server was away
}

// manner is how the callers call in an outage.
type manner struct {
	name      string
	callers   int
	streaming bool
	opts      []grpc.CallOption
}

func suffer(t *testing.T, k kind, m manner) (s suffering) {
	t.Helper()
	defer jitter.Seed(1)()
	synctest.Test(t, func(t *testing.T) {
		s.counter = newCounter()
		w := newWorld(t, k, state{}, behaviour{dial: []grpc.DialOption{
			grpc.WithStatsHandler(s.counter), grpc.WithChainUnaryInterceptor(s.intercept),
		}})
		ctx, stop := context.WithCancel(t.Context())
		for range m.callers {
			w.others.Go(func() {
				for ctx.Err() == nil {
					_, err := w.call(context.WithoutCancel(ctx), m.streaming, m.opts...)
					s.add(s.callers, err)
					time.Sleep(callPause)
				}
			})
		}
		time.Sleep(time.Second)
		before := w.link.Dials()
		w.server.Stop()
		time.Sleep(outage)
		s.dials = w.link.Dials() - before
		w.server.Start()
		time.Sleep(2 * time.Second)
		stop()
		w.end()
		if p := w.client.pool; p != nil {
			s.pool = p.Stats().Calls
		}
	})
	return s
}

func TestEverybodyCountsTheSameCallsInAnOutage(t *testing.T) {
	for _, m := range []manner{
		{name: "calls that fail fast", callers: 100},
		{name: "calls that wait", callers: 100, opts: []grpc.CallOption{grpc.WaitForReady(true)}},
		{name: "streams that fail fast", callers: 20, streaming: true},
	} {
		t.Run(m.name, func(t *testing.T) {
			var dials int64
			for _, k := range append([]kind{plain}, ours...) {
				s := suffer(t, k, m)
				t.Logf("%s: callers %v, interceptor %v, stats handler %v, again %d, pool %v; %d dials, %d other calls",
					k.name, s.callers, s.interceptor, s.stats, s.again, s.pool, s.dials, s.others)
				s.check(t, k, m)
				switch k.name {
				case scaleName:
					dials = s.dials
				case poolName:
					// Callers of one instant come in any order, and so do the pauses between dials.
					if s.dials > dials+2 {
						t.Errorf("the pool made %d dials in the outage, scale %d", s.dials, dials)
					}
				}
			}
		})
	}
}

// check compares what everybody has counted with what the callers have.
func (s suffering) check(t *testing.T, k kind, m manner) {
	t.Helper()
	if n := s.callers.failed(); len(m.opts) == 0 && int(n) < m.callers*int(outage/callPause)*9/10 {
		t.Errorf("%s: %d calls failed in the outage, and %d callers call ten times a second", k.name, n, m.callers)
	}
	compare := func(who string, got, want tally) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("on %s %s (+) counts otherwise than the callers (-):\n%s", k.name, who, diff)
		}
	}
	if !m.streaming { // an interceptor of streams sees only how they begin
		compare("the interceptor", s.interceptor, s.callers)
	}
	attempts := maps.Clone(s.callers)
	if s.again > 0 {
		attempts[codes.Unavailable] += s.again
	}
	compare("the stats handler", s.stats, attempts)
	if k.name == poolName {
		compare("the pool", s.pool, s.callers)
	}
	if s.others > 0 {
		t.Errorf("%s: the stats handler saw %d attempts of calls that nobody has made", k.name, s.others)
	}
}
