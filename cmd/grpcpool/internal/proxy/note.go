package proxy

import (
	"context"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/stats"
)

// note is a call's context, in which is written what the server's headers say and
// grpc.ClientStream does not: the encoding of its compressed messages. gRPC tells it
// to stats handlers.
type note struct {
	context.Context //nolint:containedctx // it is one

	tagged  atomic.Bool // a noteHandler is there; set before the stream is made, and by each retry
	written sync.Once
	told    sync.WaitGroup // of name
	name    string
}

type noteKey struct{}

func (n *note) init(ctx context.Context) {
	n.Context = ctx
	n.told.Add(1)
}

// Value implements context.Context.
func (n *note) Value(key any) any {
	if key == (noteKey{}) {
		return n
	}
	return n.Context.Value(key)
}

// encoding returns the name, "" for none. To be called when there are headers: gRPC
// shows them a moment before it tells of them.
func (n *note) encoding() string {
	if !n.tagged.Load() {
		return "" // a channel without DialOptions: nothing is compressed
	}
	n.told.Wait()
	if n.name == encoding.Identity {
		return ""
	}
	return n.name
}

// noteHandler writes the notes of a channel's calls.
type noteHandler struct{}

var _ stats.Handler = noteHandler{}

// HandleRPC implements stats.Handler.
func (noteHandler) HandleRPC(ctx context.Context, s stats.RPCStats) {
	header, ok := s.(*stats.InHeader)
	if !ok {
		return
	}
	if n, ok := ctx.Value(noteKey{}).(*note); ok {
		n.written.Do(func() {
			n.name = header.Compression
			n.told.Done()
		})
	}
}

// TagRPC implements stats.Handler.
func (noteHandler) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	if n, ok := ctx.Value(noteKey{}).(*note); ok {
		n.tagged.Store(true)
	}
	return ctx
}

// TagConn implements stats.Handler.
func (noteHandler) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (noteHandler) HandleConn(context.Context, stats.ConnStats) {}
