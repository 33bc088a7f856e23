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

	stopOnCancel func() bool // undoes context.AfterFunc; nil if ctx cannot end
}

// onFinish is called by gRPC when a stream has ended that was opened under s. gRPC may
// call it twice for one stream.
func (s *stream) onFinish(err error) {
	if status.Code(err) == codes.Unavailable {
		s.lease.c.doubt()
	}
	s.ended.Store(true)
	if s.calls.Load() == 0 {
		s.checkEnded()
	}
}

// callReturns is called when a call of the caller on s returns. *over is whether the
// call shows that s has ended.
func (s *stream) callReturns(over *bool) {
	if *over {
		s.end()
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
		s.end()
	case isGRPCStream(s.ClientStream):
		context.AfterFunc(s.Context(), s.end)
	}
}

// isGRPCStream reports whether s is of a type of package grpc.
func isGRPCStream(s grpc.ClientStream) bool {
	t := reflect.TypeOf(s)
	return t != nil && t.Kind() == reflect.Pointer && t.Elem().PkgPath() == reflect.TypeFor[grpc.ClientConn]().PkgPath()
}

// end gives the lease back, once.
func (s *stream) end() {
	if s.lease.end() && s.stopOnCancel != nil {
		s.stopOnCancel()
	}
}

// onCancel is called when the caller's context has ended. gRPC then ends its streams and
// calls onFinish, which ends the lease. The channel may be closed next, so gRPC gets some
// time for that. For a stream that is not gRPC's nothing is called, and the time ends
// the lease.
func (s *stream) onCancel() { time.AfterFunc(cancelGrace, s.lease.Return) }

// cancelGrace is how long a stream may take to end after its context has ended.
const cancelGrace = 50 * time.Millisecond

func (s *stream) RecvMsg(m any) error {
	over := true // also if it panics
	s.calls.Add(1)
	defer s.callReturns(&over)
	err := s.ClientStream.RecvMsg(m)
	over = err != nil || s.singleResponse
	return err
}

func (s *stream) SendMsg(m any) error {
	over := true
	s.calls.Add(1)
	defer s.callReturns(&over)
	err := s.ClientStream.SendMsg(m)
	over = !errors.Is(err, io.EOF) && s.aborted(err) // after io.EOF, RecvMsg says how the stream has ended
	return err
}

func (s *stream) Header() (metadata.MD, error) {
	over := true
	s.calls.Add(1)
	defer s.callReturns(&over)
	md, err := s.ClientStream.Header()
	over = s.aborted(err)
	return md, err
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
// RecvMsg. If there is no lease to be had, the error is Get's.
func (p *Pool) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	c, err := p.leaseFor(ctx, opts)
	if err != nil {
		return nil, err
	}
	s := &stream{ctx: ctx, lease: trackedLease{lease: lease{c: c}}}
	if len(p.hooks.used) > 0 {
		s.lease.at = p.now()
	}
	if err := s.open(desc, method, opts); err != nil || s.ClientStream == nil { //nolint:contextcheck // s has ctx
		return nil, err
	}
	return s, nil
}

func (s *stream) open(desc *grpc.StreamDesc, method string, opts []grpc.CallOption) (err error) {
	over := true // also if an interceptor panics
	s.calls.Add(1)
	defer s.callReturns(&over)
	opts = append(slices.Clip(opts), grpc.OnFinish(s.onFinish))
	s.ClientStream, err = s.lease.c.conn.NewStream(s.ctx, desc, method, opts...)
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
