package shared

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
)

// callers do things to a pool at random, and keep count of the RPCs that they have made.
type callers struct {
	t *testing.T
	p *Pool

	good  atomic.Int64 // actions that had a connection
	quiet atomic.Int64 // on the pool's clock, until when nothing is done

	mu    sync.Mutex            // guards what follows
	ended map[codes.Code]uint64 // RPCs, by how they have ended as the callers have seen it
	// unsure is how many of these were streams that nobody read, and that ended about when
	// the pool was closed: by their contexts, or with their channel.
	unsure uint64
}

func (c *callers) saw(code codes.Code) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if code >= allCodes {
		code = codes.Unknown
	}
	c.ended[code]++
}

// run acts until over is closed.
func (c *callers) run(r *rand.Rand, over <-chan struct{}) {
	for {
		select {
		case <-over:
			return
		default:
		}
		if until := time.Duration(c.quiet.Load()); c.p.now() < until {
			time.Sleep(until - c.p.now())
		}
		c.act(r)
		time.Sleep(time.Duration(r.ExpFloat64() * float64(2*time.Second)))
	}
}

// act is what a caller does once.
func (c *callers) act(r *rand.Rand) {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Duration(r.ExpFloat64()*float64(100*time.Millisecond)))
	defer cancel()
	switch r.IntN(8) {
	case 0, 1:
		c.call(ctx, callOptions(r))
	case 2, 3:
		c.stream(ctx, cancel, r)
	case 4:
		c.ask(ctx, r)
	default:
		l, err := c.p.Get(ctx)
		if err != nil {
			return
		}
		c.hold(l, r)
		c.good.Add(1)
	}
}

func callOptions(r *rand.Rand) []grpc.CallOption {
	switch r.IntN(3) {
	case 0:
		return []grpc.CallOption{grpc.WaitForReady(true)}
	case 1:
		return []grpc.CallOption{grpc.WaitForReady(false)}
	default:
		return nil
	}
}

// call makes a unary RPC on the pool.
func (c *callers) call(ctx context.Context, opts []grpc.CallOption) {
	err := errWild
	defer func() {
		c.saw(status.Code(err))
		wantWild(recover())
	}()
	if _, err = testpb.NewTestServiceClient(c.p).EmptyCall(ctx, &testpb.Empty{}, opts...); err == nil {
		c.good.Add(1)
	}
}

// wantWild goes on with any other panic than those of the interceptors.
func wantWild(bug any) {
	if bug != nil && bug != any(errWild) {
		panic(bug)
	}
}

// stream makes a stream on the pool, and reads it to its end or abandons it.
func (c *callers) stream(ctx context.Context, cancel func(), r *rand.Rand) {
	ended := codes.Unknown // if an interceptor panics
	read := false
	defer func() {
		if read {
			c.saw(ended)
		}
		wantWild(recover())
	}()
	read = true
	s, err := testpb.NewTestServiceClient(c.p).FullDuplexCall(ctx, callOptions(r)...)
	if err != nil {
		ended = status.Code(err)
		return
	}
	c.good.Add(1)
	if err = s.Send(&testpb.StreamingOutputCallRequest{}); err != nil && codeOf(err) != codes.OK {
		ended = status.Code(err)
		return
	}
	err = nil
	if r.IntN(2) == 0 {
		_ = s.CloseSend()
		for err == nil {
			_, err = s.Recv()
		}
		ended = codeOf(err)
		return
	}
	read = false // it is abandoned
	time.Sleep(time.Duration(r.ExpFloat64() * float64(100*time.Millisecond)))
	cancel()
	c.saw(status.FromContextError(ctx.Err()).Code())
	if c.p.ctx.Err() != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.unsure++
	}
}

// ask asks for what programs ask a channel.
func (c *callers) ask(ctx context.Context, r *rand.Rand) {
	switch r.IntN(7) {
	case 0:
		c.p.WaitForStateChange(ctx, c.p.GetState())
	case 1:
		c.p.WaitForStateChange(ctx, connectivity.State(r.IntN(5)))
	case 2:
		c.p.Connect()
	case 3:
		c.p.ResetConnectBackoff()
	case 4:
		if got := c.p.Target(); got == "" {
			c.t.Error("no target")
		}
	case 5:
		if got := c.p.CanonicalTarget(); got == "" {
			c.t.Error("no canonical target")
		}
	case 6:
		if s := c.p.Stats(); s.Leases < 0 || s.Waiting < 0 {
			c.t.Errorf("stats: %+v", s)
		}
	}
}

// hold keeps a lease for a while, looks whether it stays good, and returns it,
// perhaps twice and from two goroutines.
func (c *callers) hold(l grpcpool.PoolClientConn, r *rand.Rand) {
	conn := l.Connection()
	lent := l.(*trackedLease).c
	for range r.IntN(4) {
		if cut := lent.tally.Load()&closing != 0 || conn.GetState() == connectivity.Shutdown; cut && c.p.ctx.Err() == nil {
			c.t.Error("the channel was closed under a lease")
		}
		time.Sleep(time.Duration(r.ExpFloat64() * float64(500*time.Millisecond)))
	}
	var wg sync.WaitGroup
	for range 1 + r.IntN(2) {
		wg.Go(l.Return)
	}
	wg.Wait()
	if l.Connection() != nil {
		c.t.Error("a returned lease has a connection")
	}
}

// check fails unless the pool has counted the RPCs as their callers have seen them.
func (c *callers) check() {
	c.t.Helper()
	got := c.p.Stats().Calls
	var sum, want uint64
	for code := range allCodes {
		sum += got[code]
		want += c.ended[code]
		switch diff := max(got[code], c.ended[code]) - min(got[code], c.ended[code]); {
		case diff == 0:
		case (code == codes.Canceled || code == codes.DeadlineExceeded) && diff <= c.unsure:
		default:
			c.t.Errorf("%d RPCs have ended with %v, the pool counts %d", c.ended[code], code, got[code])
		}
	}
	if sum != want {
		c.t.Errorf("%d RPCs have ended, the pool counts %d", want, sum)
	}
	for _, code := range []codes.Code{codes.OK, codes.Unknown, codes.Canceled, codes.Unavailable, codes.DeadlineExceeded, codes.PermissionDenied} {
		if got[code] == 0 {
			c.t.Errorf("no RPC has ended with %v: %v", code, got)
		}
	}
}
