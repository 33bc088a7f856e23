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

// stream is a caller's stream and its lease. What the caller has need not be what
// gRPC has opened: an interceptor may open several streams for it, one after the
// other, or none, or not pass the call options on. So the lease ends with the
// caller's stream, as the caller sees it:
//
//   - RecvMsg has returned an error, or the response of a stream with one;
//   - SendMsg or Header has returned an error, and gRPC has ended a stream with that
//     (an interceptor may have refused a message without it);
//   - the caller's context has ended;
//   - gRPC has ended a stream that the caller has from gRPC itself, as the timeout
//     of a service config does.
//
// Whoever gives a stream up without one of them leaks it on a plain channel too.
type stream struct {
	grpc.ClientStream

	lease watchedLease
	ctx   context.Context //nolint:containedctx // the caller's, whose end is the stream's
	one   bool            // the server answers by one message

	// busy counts the caller's calls on the stream that are running, NewStream
	// included: what such a call returns says whether the stream is over.
	busy atomic.Int32
	// ended is set when a stream has ended that was opened with the call options,
	// and nobody has seen yet whether that was the caller's.
	ended atomic.Bool

	unwatch func() bool // ends the watch over ctx
}

// onFinish is told by gRPC that a stream has ended that was opened under s. It may
// be told so twice.
func (s *stream) onFinish(err error) {
	if status.Code(err) == codes.Unavailable {
		s.lease.c.doubt()
	}
	s.ended.Store(true)
	if s.busy.Load() == 0 {
		s.settle()
	}
}

// left is called when a call of the caller's on s returns. over is whether it says
// that s has ended.
func (s *stream) left(over *bool) {
	if *over {
		s.end()
	}
	if s.busy.Add(-1) == 0 && s.ended.Load() {
		s.settle()
	}
}

// settle finds out whether the stream that has ended was the caller's. It was if
// the caller's context has ended, too. Otherwise it is asked, if it is gRPC's own.
// One of an interceptor's may not be ready to be asked from here; it ends by the
// other ways.
func (s *stream) settle() {
	if !s.ended.Swap(false) || s.lease.returned.Load() {
		return
	}
	switch {
	case s.ctx.Err() != nil:
		s.end()
	case isGRPCs(s.ClientStream):
		context.AfterFunc(s.Context(), s.end)
	}
}

// isGRPCs reports whether s is of grpc-go's own type.
func isGRPCs(s grpc.ClientStream) bool {
	t := reflect.TypeOf(s)
	return t != nil && t.Kind() == reflect.Pointer && t.Elem().PkgPath() == reflect.TypeFor[grpc.ClientConn]().PkgPath()
}

// end gives the lease back, once.
func (s *stream) end() {
	if s.lease.end() && s.unwatch != nil {
		s.unwatch()
	}
}

// onCancel is called when the caller's context has ended. gRPC ends its streams
// then and says so, with which the lease ends; they are given the time for that,
// as the channel may be closed next. A stream that is none of gRPC's says nothing.
func (s *stream) onCancel() { time.AfterFunc(cancelGrace, s.lease.Return) }

// cancelGrace is how long a stream may take to end after its context.
const cancelGrace = 50 * time.Millisecond

func (s *stream) RecvMsg(m any) error {
	over := true // also if it panics
	s.busy.Add(1)
	defer s.left(&over)
	err := s.ClientStream.RecvMsg(m)
	over = err != nil || s.one
	return err
}

func (s *stream) SendMsg(m any) error {
	over := true
	s.busy.Add(1)
	defer s.left(&over)
	err := s.ClientStream.SendMsg(m)
	over = !errors.Is(err, io.EOF) && s.aborted(err) // after io.EOF RecvMsg says how the stream has ended
	return err
}

func (s *stream) Header() (metadata.MD, error) {
	over := true
	s.busy.Add(1)
	defer s.left(&over)
	md, err := s.ClientStream.Header()
	over = s.aborted(err)
	return md, err
}

// aborted reports whether an error of SendMsg or Header has ended the stream.
func (s *stream) aborted(err error) bool {
	return err != nil && (s.ended.Load() || isGRPCs(s.ClientStream))
}

// NewStream begins a streaming RPC and holds a lease until the stream has ended:
// until RecvMsg has returned an error (or, with client streaming, the response), or
// SendMsg or Header an error, or ctx has ended, or the channel was closed; see
// grpc.ClientConn.NewStream. It is one lease, however many streams interceptors of
// the channel open for it. After a cancellation the lease may come back a moment
// later than RecvMsg. The error of a lease that could not be had is Get's and
// carries a gRPC status.
func (p *Pool) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	c, err := p.leaseFor(ctx, opts)
	if err != nil {
		return nil, err
	}
	s := &stream{ctx: ctx, lease: watchedLease{lease: lease{c: c}}}
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
	s.busy.Add(1)
	defer s.left(&over)
	opts = append(slices.Clip(opts), grpc.OnFinish(s.onFinish))
	s.ClientStream, err = s.lease.c.conn.NewStream(s.ctx, desc, method, opts...)
	if err != nil || s.ClientStream == nil {
		return err
	}
	over, s.one = false, !desc.ServerStreams
	s.ended.Store(false) // those were other streams, of an interceptor that has tried again
	if s.ctx.Done() != nil {
		s.unwatch = context.AfterFunc(s.ctx, s.onCancel)
	}
	return nil
}
