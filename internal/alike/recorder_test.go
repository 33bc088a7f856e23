package alike_test

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// outcome is what became of one call, as everybody saw it.
type outcome struct {
	Code codes.Code
	From string // which function of a stream returned the error; "" for a unary call
	Took string // a class: see classify
	Text string // the status's message; compared by containment

	Interceptors [2]int       // how often each of the chain saw the call
	Seen         []codes.Code // with which codes the outer one saw it end (a stream: begin)
	Begin        int          // what the stats handler saw
	WaitsIfAsked int          // of Begin: those that do not fail fast
	Picked       int          // DelayedPickComplete
	OutHeader    int
	InTrailer    int
	End          []codes.Code // sorted
	Transparent  int          // of Begin: those that repeat what no server has seen

	OnFinish []codes.Code // what the call option of this name was called with
	Header   string       // what the server sent, by the call options
	Trailer  string
	Attempts int    // that the server's handler saw
	Encoding string // of the request
	Token    string // of the per-RPC credentials

	Foreign int // attempts of calls that are not the program's, which its stats handler saw
	Strange int // reports to the stats handler of a call that it was not asked to tag

	Dials int64 // while the call ran; only where the behaviour asks for it
	Next  codes.Code
}

// classify says how long a call took, in words that are the same for all that is well:
// the channels here differ in milliseconds by design.
func classify(took, deadline time.Duration) string {
	switch {
	case took >= deadline:
		return untilDeadline
	case took < time.Second:
		return atOnce
	default:
		return aWhile
	}
}

const (
	atOnce        = "at once"
	aWhile        = "a while"
	untilDeadline = "until the deadline"
)

const method = "/alike.Alike/Call"

type (
	counted struct{} // in the context of the call that counts
	tagged  struct{} // in the contexts that the stats handler has made
)

// recorder collects an outcome. It is the program's stats handler and its interceptors.
type recorder struct {
	mu sync.Mutex // guards what follows
	o  outcome
}

func (r *recorder) note(f func(o *outcome)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.o)
}

func (r *recorder) outcome() outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.Sort(r.o.End)
	return r.o
}

// counts reports whether a call is the one that is recorded.
func counts(ctx context.Context, called string) bool {
	return called == method && ctx.Value(counted{}) != nil
}

func (r *recorder) options() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStatsHandler(r),
		grpc.WithChainUnaryInterceptor(r.unary(0), r.unary(1)),
		grpc.WithChainStreamInterceptor(r.stream(0), r.stream(1)),
	}
}

func (r *recorder) unary(which int) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, called string, in, out any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := next(ctx, called, in, out, cc, opts...)
		r.intercepted(ctx, called, which, err)
		return err
	}
}

func (r *recorder) stream(which int) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, called string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		s, err := next(ctx, desc, cc, called, opts...)
		r.intercepted(ctx, called, which, err)
		return s, err
	}
}

func (r *recorder) intercepted(ctx context.Context, called string, which int, err error) {
	if !counts(ctx, called) {
		return
	}
	r.note(func(o *outcome) {
		o.Interceptors[which]++
		if which == 0 {
			o.Seen = append(o.Seen, status.Code(err))
		}
	})
}

func (r *recorder) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	if info.FullMethodName != method {
		r.note(func(o *outcome) { o.Foreign++ })
	}
	return context.WithValue(ctx, tagged{}, counts(ctx, info.FullMethodName))
}

func (r *recorder) HandleRPC(ctx context.Context, event stats.RPCStats) {
	mine, ok := ctx.Value(tagged{}).(bool)
	if !ok {
		r.note(func(o *outcome) { o.Strange++ })
	}
	if mine {
		r.note(func(o *outcome) { o.add(event) })
	}
}

func (o *outcome) add(event stats.RPCStats) {
	switch event := event.(type) {
	case *stats.Begin:
		o.Begin++
		if !event.FailFast {
			o.WaitsIfAsked++
		}
		if event.IsTransparentRetryAttempt {
			o.Transparent++
		}
	case *stats.DelayedPickComplete:
		o.Picked++
	case *stats.OutHeader:
		o.OutHeader++
		o.Encoding = event.Compression
	case *stats.InTrailer:
		o.InTrailer++
	case *stats.End:
		o.End = append(o.End, status.Code(event.Error))
	}
}

func (*recorder) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*recorder) HandleConn(context.Context, stats.ConnStats)                       {}
