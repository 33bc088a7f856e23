//go:build linux

package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/stats"
)

// call is one RPC of a load. Its fields are guarded by load.mu.
type call struct {
	begun time.Time
	lent  time.Time // when it had the channel; zero: never
	sent  time.Time // when it was last put on a connection; zero: never
	on    string    // this side's address of that connection
	there bool      // it still is on it; else gRPC puts it on another one, or it has ended
	ended time.Time
	err   error

	stream bool
}

// load makes calls on one client and remembers them.
type load struct {
	client  client
	ctx     context.Context //nolint:containedctx // the load's life
	stop    context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex         // guards what follows and every call
	active map[*call]struct{} // not ended
	ended  []*call            // in the order of their ends

	left  map[string]time.Time   // when a call was last on the connection of that address, and no more
	put   map[string][]time.Time // when calls were put on it
	conns map[string]struct{}    // this side's addresses of the open connections, as gRPC tells of them

	returns []time.Duration // the first good call's after each restart; of the goroutine that plays the script
}

func newLoad() *load {
	l := &load{
		active: make(map[*call]struct{}),
		left:   make(map[string]time.Time), put: make(map[string][]time.Time), conns: make(map[string]struct{}),
	}
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l
}

// end stops the load and waits for its calls.
func (l *load) end() {
	l.stop()
	l.running.Wait()
}

// make makes one call and remembers it, unless it was the caller who ended it.
func (l *load) make(ctx context.Context, rpc func(context.Context, *grpc.ClientConn) error) error {
	return l.remember(ctx, &call{begun: time.Now()}, rpc)
}

func (l *load) remember(ctx context.Context, c *call, rpc func(context.Context, *grpc.ClientConn) error) error {
	l.mu.Lock()
	l.active[c] = struct{}{}
	l.mu.Unlock()
	got := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		c.lent = time.Now()
	}
	err := l.client.do(ctx, got, func(conn *grpc.ClientConn) error {
		return rpc(context.WithValue(ctx, callKey{}, c), conn)
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	c.ended, c.err = time.Now(), err
	delete(l.active, c)
	if !errors.Is(ctx.Err(), context.Canceled) {
		l.ended = append(l.ended, c)
	}
	return err
}

// unary makes a unary call.
func (l *load) unary(timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(l.ctx, timeout)
	defer cancel()
	return l.make(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := testpb.NewTestServiceClient(conn).UnaryCall(ctx, &testpb.SimpleRequest{})
		return err
	})
}

// calls begins a call every so often until the load ends.
func (l *load) calls(step callsStep) {
	l.running.Go(func() {
		tick := time.NewTicker(step.every)
		defer tick.Stop()
		for {
			l.running.Go(func() { _ = l.unary(step.timeout) }) // remembered there
			select {
			case <-tick.C:
			case <-l.ctx.Done():
				return
			}
		}
	})
}

// call begins one unary call.
func (l *load) call(step callStep) {
	l.running.Go(func() { _ = l.unary(step.timeout) }) // remembered there
}

// callers begins callers, each of whom makes the next call when the last has ended,
// until the load ends.
func (l *load) callers(step callersStep) {
	for range step.n {
		l.running.Go(func() {
			select {
			case <-time.After(rand.N(step.over + 1)): //nolint:gosec // not a secret
			case <-l.ctx.Done():
			}
			for l.ctx.Err() == nil {
				if err := l.unary(callTimeout); err != nil {
					select {
					case <-time.After(looks): // a call that fails at once does not take the processor
					case <-l.ctx.Done():
					}
				}
			}
		})
	}
}

// hold opens a stream on which nothing is sent, and returns when the server has
// answered.
func (l *load) hold() error {
	return l.open(func(ctx context.Context, conn *grpc.ClientConn) (grpc.ClientStream, error) {
		return testpb.NewTestServiceClient(conn).FullDuplexCall(ctx)
	}, func(stream grpc.ClientStream) error {
		_, err := stream.Header()
		return err
	})
}

// stream opens a stream on which the server sends, and returns when it has begun.
func (l *load) stream(every time.Duration) error {
	request := &testpb.StreamingOutputCallRequest{
		ResponseParameters: []*testpb.ResponseParameters{{IntervalUs: int32(every.Microseconds())}}, //nolint:gosec // at most an hour
	}
	return l.open(func(ctx context.Context, conn *grpc.ClientConn) (grpc.ClientStream, error) {
		return testpb.NewTestServiceClient(conn).StreamingOutputCall(ctx, request)
	}, func(stream grpc.ClientStream) error {
		return stream.RecvMsg(new(testpb.StreamingOutputCallResponse))
	})
}

// open opens a stream, waits for its begin, and reads from it until it ends.
func (l *load) open(open func(context.Context, *grpc.ClientConn) (grpc.ClientStream, error), begin func(grpc.ClientStream) error) error {
	begun := make(chan error, 1)
	l.running.Go(func() {
		ctx, cancel := context.WithCancel(l.ctx)
		defer cancel()
		err := l.remember(ctx, &call{begun: time.Now(), stream: true}, func(ctx context.Context, conn *grpc.ClientConn) error {
			stream, err := open(ctx, conn)
			if err == nil {
				err = begin(stream)
			}
			begun <- err
			for err == nil {
				err = stream.RecvMsg(new(testpb.StreamingOutputCallResponse))
			}
			return err
		})
		select {
		case begun <- err: // there was no lease to be had
		default:
		}
	})
	select {
	case err := <-begun:
		return err
	case <-time.After(callTimeout):
		return fmt.Errorf("faults: a stream was not begun within %v", callTimeout)
	}
}

// callKey finds the call in the context of its RPC.
type callKey struct{}

// TagRPC, HandleRPC, TagConn and HandleConn make load a stats.Handler, which
// learns what connection a call was put on.

// TagRPC does nothing.
func (*load) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC notes when a call is put on a connection, and when it is off it again: a
// call that the server has not seen then waits for another connection.
func (l *load) HandleRPC(ctx context.Context, s stats.RPCStats) {
	c, isOurs := ctx.Value(callKey{}).(*call)
	if !isOurs {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch s := s.(type) {
	case *stats.OutHeader:
		if s.LocalAddr != nil {
			c.sent, c.on, c.there = time.Now(), s.LocalAddr.String(), true
			l.put[c.on] = append(l.put[c.on], c.sent)
		}
	case *stats.End: // of one attempt
		if c.there {
			c.there, l.left[c.on] = false, time.Now()
		}
	}
}

// connKey finds the local address in the context of a connection.
type connKey struct{}

// TagConn notes the connection's address.
func (*load) TagConn(ctx context.Context, info *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, connKey{}, info.LocalAddr.String())
}

// HandleConn notes which connections are open.
func (l *load) HandleConn(ctx context.Context, s stats.ConnStats) {
	local, _ := ctx.Value(connKey{}).(string)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch s.(type) {
	case *stats.ConnBegin:
		l.conns[local] = struct{}{}
	case *stats.ConnEnd:
		delete(l.conns, local)
	}
}

// connections are this side's addresses of the open connections. A nil load has none.
func (l *load) connections() (local []string) {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.conns))
}

// each calls f for every call that has ended, the oldest first, until f is false,
// and then for those that have not.
func (l *load) each(f func(*call) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.ended {
		if !f(c) {
			return
		}
	}
	for c := range l.active {
		if !f(c) {
			return
		}
	}
}

// quantile is the time that the share q of the good calls begun since then took at
// most, and how many they were.
func (l *load) quantile(q float64, since time.Time) (time.Duration, int) {
	var took []time.Duration
	l.each(func(c *call) bool {
		if !c.ended.IsZero() && c.err == nil && !c.begun.Before(since) {
			took = append(took, c.ended.Sub(c.begun))
		}
		return true
	})
	if len(took) == 0 {
		return 0, 0
	}
	slices.Sort(took)
	return took[min(int(q*float64(len(took))), len(took)-1)], len(took)
}
