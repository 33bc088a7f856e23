package proxy

import (
	"context"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// note is what the server's headers say of a call and grpc.ClientStream does not:
// the encoding of its compressed messages. gRPC tells it to stats handlers.
type note struct {
	name   chan string // holds one
	tagged bool        // a noteHandler is there; set before the stream is made
}

type noteKey struct{}

func newNote() *note { return &note{name: make(chan string, 1)} }

func (n *note) attach(ctx context.Context) context.Context {
	return context.WithValue(ctx, noteKey{}, n)
}

// encoding waits for the name, "" for none. To be called when there are headers:
// gRPC shows them a moment before it tells them.
func (n *note) encoding(ctx context.Context) (string, error) {
	if !n.tagged {
		return "", nil // a channel without DialOptions: nothing is compressed
	}
	select {
	case name := <-n.name:
		if name == encoding.Identity {
			name = ""
		}
		return name, nil
	case <-ctx.Done():
		return "", status.FromContextError(ctx.Err()).Err()
	}
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
		select {
		case n.name <- header.Compression:
		default: // told before
		}
	}
}

// TagRPC implements stats.Handler.
func (noteHandler) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	if n, ok := ctx.Value(noteKey{}).(*note); ok {
		n.tagged = true
	}
	return ctx
}

// TagConn implements stats.Handler.
func (noteHandler) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (noteHandler) HandleConn(context.Context, stats.ConnStats) {}
