package shared

import (
	"context"
	"errors"
	"io"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// stream is a caller's stream and its lease. The caller's stream need not be the one
// that gRPC opened: an interceptor may open several streams for it, one after the other,
// or none, or drop the call options. So the lease ends when the caller's stream ends, as
// the caller sees it:
//
//   - RecvMsg returned an error, or the response of a stream that has a single one;
//   - SendMsg or Header returned an error, and gRPC ended a stream with it (an
//     interceptor may refuse a message without ending a stream);
//   - the caller's context ended;
//   - gRPC ended a stream that the caller has from gRPC itself, as the timeout of a
//     service config does.
//
// A caller that drops a stream without any of these leaks it on a plain channel too.
type stream struct {
	grpc.ClientStream

	lease trackedLease
	ctx   context.Context //nolint:containedctx // the caller's, whose end is the stream's

	singleResponse bool // the server answers with one message

	// calls counts the caller's calls on the stream that run now, including NewStream.
	// What such a call returns says whether the stream is over.
	calls atomic.Int32
	// ended is set when gRPC has ended a stream under this one, and it is not known yet
	// whether that was the caller's.
	ended atomic.Bool

	counted      atomic.Bool // as an RPC that has ended
	stopOnCancel func() bool // undoes context.AfterFunc; nil if ctx cannot end

	// outcome is the status with which gRPC has last ended a stream under this one.
	outcome atomic.Uint32
}

// onFinish is called by gRPC when a stream has ended that was opened under s. gRPC may
// call it twice for one stream.
func (s *stream) onFinish(err error) {
	if status.Code(err) == codes.Unavailable {
		s.lease.c.doubt()
	}
	s.outcome.Store(uint32(codeOf(err)))
	s.ended.Store(true)
	if s.calls.Load() == 0 {
		s.checkEnded()
	}
}

// codeOf is the status of a stream that has ended with err.
func codeOf(err error) codes.Code {
	if errors.Is(err, io.EOF) { // as RecvMsg has it
		return codes.OK
	}
	return status.Code(err)
}

// callReturns is called when a call of the caller on s returns. *over is whether the
// call shows that s has ended, and *err with what.
func (s *stream) callReturns(over *bool, err *error) {
	if *over {
		s.end(codeOf(*err))
	}
	if s.calls.Add(-1) == 0 && s.ended.Load() {
		s.checkEnded()
	}
}

// checkEnded finds out whether the stream that has ended was the caller's. It was if
// the caller's context has ended. If the caller's stream is gRPC's own, its context ends
// with it. An interceptor's stream may not be ready to be asked for its context here; it
// ends in the other ways.
func (s *stream) checkEnded() {
	if !s.ended.Swap(false) || s.lease.returned.Load() {
		return
	}
	switch {
	case s.ctx.Err() != nil:
		s.onEnd()
	case isGRPCStream(s.ClientStream):
		context.AfterFunc(s.Context(), s.onEnd)
	}
}

// isGRPCStream reports whether s is of a type of package grpc.
func isGRPCStream(s grpc.ClientStream) bool {
	t := reflect.TypeOf(s)
	return t != nil && t.Kind() == reflect.Pointer && t.Elem().PkgPath() == reflect.TypeFor[grpc.ClientConn]().PkgPath()
}

// onEnd ends s as the caller's context has ended, the channel has been closed, or else as gRPC
// has ended the stream under it: with the others, outcome may still be that of an earlier
// stream. If a call of the caller runs, that says better how s has ended, and comes back to
// this if it does not say.
func (s *stream) onEnd() {
	s.ended.Store(true)
	if s.calls.Load() > 0 || !s.ended.Swap(false) {
		return
	}
	err := s.ctx.Err()
	switch {
	case err != nil:
		s.end(status.FromContextError(err).Code())
	case s.lease.c.tally.Load()&closing != 0:
		s.end(codes.Canceled)
	default:
		s.end(codes.Code(s.outcome.Load()))
	}
}

// end counts the RPC and gives the lease back, once.
func (s *stream) end(outcome codes.Code) {
	if s.settle(outcome) && s.stopOnCancel != nil {
		s.stopOnCancel()
	}
}

// settle is end where stopOnCancel may still be about to be set. It returns false if s has
// ended before.
func (s *stream) settle(outcome codes.Code) bool {
	if !s.counted.CompareAndSwap(false, true) {
		return false
	}
	s.lease.c.pool.countCall(outcome) // before Close can return
	s.lease.Return()
	return true
}

// onCancel is called when the caller's context has ended. gRPC then ends its streams and
// calls onFinish, which ends the lease. The channel may be closed next, so gRPC gets some
// time for that. For a stream that is not gRPC's nothing is called, and the time ends
// the lease.
func (s *stream) onCancel() {
	time.AfterFunc(cancelGrace, func() { s.settle(status.FromContextError(s.ctx.Err()).Code()) })
}

// cancelGrace is how long a stream may take to end after its context has ended.
const cancelGrace = 50 * time.Millisecond

func (s *stream) RecvMsg(m any) error {
	over, err := true, errPanicked
	s.calls.Add(1)
	defer s.callReturns(&over, &err)
	err = s.ClientStream.RecvMsg(m)
	over = err != nil || s.singleResponse
	return s.explain(err)
}

func (s *stream) SendMsg(m any) error {
	over, err := true, errPanicked
	s.calls.Add(1)
	defer s.callReturns(&over, &err)
	err = s.ClientStream.SendMsg(m)
	over = !errors.Is(err, io.EOF) && s.aborted(err) // after io.EOF, RecvMsg says how the stream has ended
	return s.explain(err)
}

func (s *stream) Header() (metadata.MD, error) {
	over, err := true, errPanicked
	s.calls.Add(1)
	defer s.callReturns(&over, &err)
	md, err := s.ClientStream.Header()
	over = s.aborted(err)
	return md, s.explain(err)
}

// errPanicked is what a call ends with that an interceptor's panic has ended.
var errPanicked = errors.New("panicked")

// explain is channel.explain for an error of s, which may be io.EOF.
func (s *stream) explain(err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // gRPC returns it as it is
		return err
	}
	return s.lease.c.explain(s.ctx, err, status.Code(err))
}

// aborted reports whether an error of SendMsg or Header has ended the stream.
func (s *stream) aborted(err error) bool {
	return err != nil && (s.ended.Load() || isGRPCStream(s.ClientStream))
}

// NewStream begins a streaming RPC, and holds a lease until the stream has ended: until
// RecvMsg has returned an error (with client streaming: the response), SendMsg or Header
// has returned an error, ctx has ended, or the channel was closed; see
// grpc.ClientConn.NewStream. It is one lease, however many streams the channel's
// interceptors open for it. After ctx has ended, the lease may end 50 ms later than
// RecvMsg.
//
// It is an RPC on the channel in every way; see Invoke, also for the errors of the stream's
// methods.
func (p *Pool) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	c, opts, err := p.leaseForCall(ctx, opts)
	if err != nil {
		p.countCall(status.Code(err))
		return nil, err
	}
	s := &stream{ctx: ctx, lease: trackedLease{lease: lease{c: c}}}
	if len(p.hooks.used) > 0 {
		s.lease.at = p.now()
	}
	if err := s.open(desc, method, opts); err != nil || s.ClientStream == nil { //nolint:contextcheck // s has ctx
		return nil, s.explain(err)
	}
	return s, nil
}

func (s *stream) open(desc *grpc.StreamDesc, method string, opts []grpc.CallOption) (err error) {
	over := true // also if an interceptor panics
	ended := errPanicked
	s.calls.Add(1)
	defer s.callReturns(&over, &ended)
	opts = append(slices.Clip(opts), grpc.OnFinish(s.onFinish))
	s.ClientStream, err = s.lease.c.conn.NewStream(s.ctx, desc, method, opts...)
	ended = err
	if err != nil || s.ClientStream == nil {
		return err
	}
	over, s.singleResponse = false, !desc.ServerStreams
	s.ended.Store(false) // by other streams, of an interceptor that tried again
	if s.ctx.Done() != nil {
		s.stopOnCancel = context.AfterFunc(s.ctx, s.onCancel)
	}
	return nil
}
