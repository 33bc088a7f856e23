package alike_test

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
)

// What the server is asked for, as metadata.
const (
	countKey = "alike-count" // this call counts
	failKey  = "alike-fail"  // answer Unavailable to so many attempts
	holdKey  = "alike-hold"  // answer after so long
	tokenKey = "alike-token" // of per-RPC credentials
)

// world is a server, the network to it and a client, in a bubble of testing/synctest.
type world struct {
	t        *testing.T
	patience time.Duration // the deadline of a call without another

	rec         *recorder
	link        *grpcpooltest.Link
	server      *grpcpooltest.Server // nil if the server is one of h2test
	limits      *h2test.Server       // nil unless it is
	client      client
	sick        atomic.Bool                     // the channel that is pinged next is sick
	sickChannel atomic.Pointer[grpc.ClientConn] // pings of it fail
	over        atomic.Bool                     // the call has ended
	lent        []func()                        // give leases back
	made        tally                           // all calls; guarded by rec
	others      sync.WaitGroup                  // calls beside the one that counts
}

func newWorld(t *testing.T, k kind, st state, b behaviour) *world {
	t.Helper()
	w := &world{t: t, patience: cmp.Or(st.patience, 8*time.Second), rec: new(recorder), made: make(tally)}
	var target string
	var opts []grpc.DialOption
	if st.limited {
		w.limits = h2test.NewServer(t, h2test.WithInMemory(), h2test.WithLimit(0), h2test.WithOnCall(w.arrived))
		w.link = grpcpooltest.NewLink(w.limits.Dial)
		target, opts = w.limits.Target(), w.limits.DialOptions(w.link.DialOption())
	} else {
		more := []grpcpooltest.Option{grpcpooltest.WithInMemory(), grpcpooltest.WithServerOptions(grpc.UnknownServiceHandler(w.handle))}
		if st.server != nil {
			more = append(more, st.server())
		}
		w.server = grpcpooltest.NewServer(t, more...)
		w.link = grpcpooltest.NewLink(w.server.Dial)
		target, opts = w.server.Target(), w.server.DialOptions(w.link.DialOption())
	}
	// Without it the server would learn of a deadline at the same instant as the client, and
	// a call could be over before anybody has had to wait for it.
	w.link.Delay(time.Millisecond)
	opts = append(opts, w.rec.options()...)
	if st.creds != nil {
		opts = append(opts, grpc.WithTransportCredentials(st.creds(t)))
	}
	if k.name == plainName {
		opts = append(opts, b.plain...)
	}
	p := plan{target: target, dial: append(append(opts, st.dial...), b.dial...), idle: st.idle}
	if st.asks {
		p.ping = w.ping
	}
	w.client = k.open(t, p)
	return w
}

// arrived counts a call of the server of h2test, which knows no metadata of ours.
func (w *world) arrived(call h2test.CallInfo) {
	if call.Method == method {
		w.rec.note(func(o *outcome) { o.Attempts++ })
	}
}

// handle serves every method that no service has.
func (w *world) handle(_ any, stream grpc.ServerStream) error {
	if err := stream.RecvMsg(new(emptypb.Empty)); err != nil {
		return err
	}
	ctx := stream.Context()
	md, _ := metadata.FromIncomingContext(ctx)
	one := func(key string) string { return append(md.Get(key), "")[0] }
	if one(countKey) != "" {
		w.rec.note(func(o *outcome) { o.Attempts, o.Token = o.Attempts+1, one(tokenKey) })
	}
	if hold, err := time.ParseDuration(one(holdKey)); err == nil {
		select {
		case <-time.After(hold):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	_ = stream.SetHeader(metadata.Pairs("alike-header", "of the server"))
	stream.SetTrailer(metadata.Pairs("alike-trailer", "of the server"))
	before, _ := strconv.Atoi(one("grpc-previous-rpc-attempts"))
	if fail, _ := strconv.Atoi(one(failKey)); before < fail {
		return status.Error(codes.Unavailable, "the server fails")
	}
	return stream.SendMsg(new(emptypb.Empty))
}

// call makes one call, and says which function returned its error.
func (w *world) call(ctx context.Context, streaming bool, opts ...grpc.CallOption) (from string, err error) {
	defer func() {
		w.rec.note(func(*outcome) { w.made[status.Code(err)]++ })
	}()
	if !streaming {
		return "", w.client.Invoke(ctx, method, new(emptypb.Empty), new(emptypb.Empty), opts...)
	}
	desc := &grpc.StreamDesc{StreamName: "Call", ServerStreams: true, ClientStreams: true}
	s, err := w.client.NewStream(ctx, desc, method, opts...)
	if err != nil {
		return "NewStream", err
	}
	if err := s.SendMsg(new(emptypb.Empty)); err != nil && !errors.Is(err, io.EOF) {
		return "SendMsg", err
	}
	if err := s.CloseSend(); err != nil {
		return "CloseSend", err
	}
	for {
		if err := s.RecvMsg(new(emptypb.Empty)); errors.Is(err, io.EOF) {
			return "", nil
		} else if err != nil {
			return "RecvMsg", err
		}
	}
}

// ping is a pool's own, in a state in which the test borrows from it: those may be seen.
func (w *world) ping(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
	if w.sick.Load() {
		w.sickChannel.CompareAndSwap(nil, conn)
	}
	if w.sickChannel.Load() == conn {
		return 0, status.Error(codes.Internal, "sick")
	}
	return 0, conn.Invoke(ctx, method, new(emptypb.Empty), new(emptypb.Empty))
}

// borrow has a pool lend its channel. Other kinds lend nothing.
func (w *world) borrow() error {
	if w.client.pool == nil {
		return nil
	}
	lease, err := w.client.pool.Get(w.t.Context())
	if err == nil {
		w.lent = append(w.lent, lease.Return)
	}
	return err
}

// give returns what was borrowed.
func (w *world) give() {
	for _, give := range w.lent {
		give()
	}
	w.lent = nil
}

// mustCall makes a call that does not count and succeeds.
func (w *world) mustCall() {
	w.t.Helper()
	if _, err := w.call(w.t.Context(), false); err != nil {
		w.t.Fatalf("a call that prepares the state failed: %v", err)
	}
}

// play brings a channel into a state and makes the call that counts.
func play(t *testing.T, k kind, st state, b behaviour, streaming bool) outcome {
	t.Helper()
	w := newWorld(t, k, st, b)
	st.before(w)
	synctest.Wait()

	deadline := cmp.Or(b.deadline, w.patience)
	own := context.WithValue(t.Context(), counted{}, true)
	own = metadata.AppendToOutgoingContext(own, countKey, "yes", failKey, strconv.Itoa(b.fails), holdKey, st.hold.String())
	ctx, cancel := context.WithTimeout(own, max(deadline, b.context))
	defer cancel()
	during := time.NewTimer(0)
	if st.during != nil {
		during = time.AfterFunc(time.Second, func() { w.others.Go(func() { st.during(w) }) })
	}
	if b.cancels > 0 {
		time.AfterFunc(b.cancels, cancel)
	} else if b.cancels < 0 {
		cancel()
	}
	dials, begun := w.link.Dials(), time.Now()
	var header, trailer metadata.MD
	finished := grpc.OnFinish(func(err error) {
		w.rec.note(func(o *outcome) { o.OnFinish = append(o.OnFinish, status.Code(err)) })
	})
	from, err := w.call(ctx, streaming, append([]grpc.CallOption{grpc.Header(&header), grpc.Trailer(&trailer), finished}, b.call...)...)
	took := time.Since(begun)
	during.Stop()
	w.over.Store(true)
	synctest.Wait()
	w.rec.note(func(o *outcome) {
		o.Code, o.Text, o.From, o.Took = status.Code(err), status.Convert(err).Message(), from, classify(took, deadline)
		o.Header, o.Trailer = append(header.Get("alike-header"), "")[0], append(trailer.Get("alike-trailer"), "")[0]
	})
	if b.leavesConnectionAlone {
		dials = w.link.Dials() - dials
		next, cancel := context.WithTimeout(t.Context(), w.patience)
		defer cancel()
		_, err := w.call(next, streaming)
		w.rec.note(func(o *outcome) { o.Dials, o.Next = dials, status.Code(err) })
	}
	w.end()
	return w.rec.outcome()
}

func (w *world) end() {
	w.t.Helper()
	w.others.Wait()
	w.give()
	if p := w.client.pool; p != nil {
		time.Sleep(time.Second) // of the bubble: more than a stream's lease may outlast it
		s := p.Stats()
		if s.Leases > 0 || s.Waiting > 0 {
			w.t.Errorf("after the call the pool has %d leases out and %d callers waiting", s.Leases, s.Waiting)
		}
		if !maps.Equal(w.made, s.Calls) {
			w.t.Errorf("the pool counts the calls %v, and %v were made", s.Calls, w.made)
		}
	}
	_ = w.client.close() // closed already, perhaps
}
