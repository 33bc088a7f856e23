package proxy

import (
	"context"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/stats"
)

// note is the context of a call to the server. It records the encoding of the server's
// compressed messages, which gRPC reports to stats handlers and not in
// grpc.ClientStream.
type note struct {
	context.Context //nolint:containedctx // a note is a context

	tagged  atomic.Bool // the channel has a noteHandler; set before the stream is created, and by each retry
	written sync.Once
	named   sync.WaitGroup // until name is set
	name    string
}

type noteKey struct{}

func (n *note) init(ctx context.Context) {
	n.Context = ctx
	n.named.Add(1)
}

// Value implements context.Context.
func (n *note) Value(key any) any {
	if key == (noteKey{}) {
		return n
	}
	return n.Context.Value(key)
}

// encoding returns the name of the encoding, "" for none. Call it when the headers have
// arrived: it may wait for a moment, since stats handlers learn of them later.
func (n *note) encoding() string {
	if !n.tagged.Load() {
		return "" // the channel was made without DialOptions: nothing is compressed
	}
	n.named.Wait()
	if n.name == encoding.Identity {
		return ""
	}
	return n.name
}

// noteHandler fills in the notes of a channel's calls.
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
			n.named.Done()
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
