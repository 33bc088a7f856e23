package proxy

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/metadata"
)

// tokenHeader is where a client shows the proxy's token. The authorization header
// is the server's (RFC 9110, section 11.7).
const tokenHeader = "proxy-authorization"

// hopHeaders speak of one connection (RFC 9113, section 8.2.2) or of what gRPC
// writes anew on each: they do not pass. gRPC itself keeps back the others of its
// own (grpc-timeout, grpc-encoding, grpc-status and so on).
var hopHeaders = []string{
	":authority", "host", "content-type", "user-agent", "grpc-accept-encoding", tokenHeader,
	"te", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade",
}

// passOn returns ctx with the metadata that goes on to the server.
func passOn(ctx context.Context) context.Context {
	md, _ := metadata.FromIncomingContext(ctx) // a copy
	dropHop(md)
	return metadata.NewOutgoingContext(ctx, md)
}

func dropHop(md metadata.MD) {
	for _, key := range hopHeaders {
		delete(md, key)
	}
}

// transportStream is what gRPC knows of a call that a client made and has no
// function for. grpc.ServerTransportStreamFromContext returns one of these.
type transportStream interface {
	RecvCompress() string
	ContentSubtype() string
}

// wire is how the messages of a call are written.
type wire struct {
	encoding string   // of the client's compressed messages; "" if it compresses none
	accepts  []string // encodings that the client can read
	subtype  string   // of the content type, which names the codec
}

func wireOf(ctx context.Context) wire {
	w := wire{}
	if ts, ok := grpc.ServerTransportStreamFromContext(ctx).(transportStream); ok {
		w.subtype = ts.ContentSubtype()
		if e := ts.RecvCompress(); e != encoding.Identity {
			w.encoding = e
		}
	}
	names, _ := grpc.ClientSupportedCompressors(ctx)
	for _, n := range names {
		n = strings.TrimSpace(n)
		if n != encoding.Identity && encoding.GetCompressor(n) != nil {
			w.accepts = append(w.accepts, n)
		}
	}
	return w
}

// callOptions make a call to the server be written as the client's is.
func (w wire) callOptions(fixed []grpc.CallOption) []grpc.CallOption {
	opts := make([]grpc.CallOption, 0, len(fixed)+3)
	opts = append(opts, fixed...)
	if w.subtype != "" {
		opts = append(opts, grpc.CallContentSubtype(w.subtype))
	}
	accepts := w.accepts
	if w.encoding != "" {
		opts = append(opts, grpc.UseCompressor(w.encoding))
		if !slices.Contains(accepts, w.encoding) {
			// Who writes it reads it: gRPC servers answer in the request's encoding.
			accepts = append(slices.Clip(accepts), w.encoding)
		}
	}
	return append(opts, accept(accepts))
}

// accept offers the server these encodings, and none if there are none.
func accept(names []string) grpc.CallOption {
	if len(names) > 0 {
		return experimental.AcceptCompressors(names...)
	}
	if encoding.GetCompressor(noEncoding) == nil {
		return grpc.EmptyCallOption{} // RegisterEncodings was not called
	}
	return experimental.AcceptCompressors(noEncoding)
}
