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

// acceptHeader is where a client says which encodings it can read.
const acceptHeader = "grpc-accept-encoding"

// isHop says of a header that it speaks of one connection (RFC 9113, section 8.2.2) or
// that gRPC writes it anew on each: it does not pass. gRPC itself keeps back the others
// of its own (grpc-timeout, grpc-encoding, grpc-status and so on).
func isHop(key string) bool {
	switch key {
	case ":authority", "host", "content-type", "user-agent", acceptHeader, tokenHeader,
		"te", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return true
	default:
		return false
	}
}

func dropHop(md metadata.MD) {
	for key := range md {
		if isHop(key) {
			delete(md, key)
		}
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
	encoding string // of the client's compressed messages; "" if it compresses none
	accepts  string // encodings that the client can read, with commas between
	subtype  string // of the content type, which names the codec
}

// wireOf takes md as the client sent it.
func wireOf(ctx context.Context, md metadata.MD) wire {
	w := wire{}
	if ts, ok := grpc.ServerTransportStreamFromContext(ctx).(transportStream); ok {
		w.subtype = ts.ContentSubtype()
		if e := ts.RecvCompress(); e != encoding.Identity {
			w.encoding = e
		}
	}
	switch accepts := md[acceptHeader]; len(accepts) {
	case 0:
	case 1:
		w.accepts = accepts[0]
	default:
		w.accepts = strings.Join(accepts, ",")
	}
	return w
}

// optionsFor are those of a call to the server that is written as w, the client's.
func (s *Server) optionsFor(w wire) []grpc.CallOption {
	if len(w.accepts)+len(w.subtype)+len(w.encoding) > maxMemoKey {
		return w.callOptions(s.callOptions)
	}
	opts, _ := s.options.get(w, func(w wire) []grpc.CallOption { return w.callOptions(s.callOptions) })
	return opts
}

// callOptions adds to fixed. The result has no room for more, so that who appends to
// it gets a copy.
func (w wire) callOptions(fixed []grpc.CallOption) []grpc.CallOption {
	opts := slices.Clone(fixed)
	if w.subtype != "" {
		opts = append(opts, grpc.CallContentSubtype(w.subtype))
	}
	var accepts []string
	for n := range strings.SplitSeq(w.accepts, ",") {
		n = strings.TrimSpace(n)
		if n != "" && n != encoding.Identity && encoding.GetCompressor(n) != nil {
			accepts = append(accepts, n)
		}
	}
	if w.encoding != "" {
		opts = append(opts, grpc.UseCompressor(w.encoding))
		if !slices.Contains(accepts, w.encoding) {
			// Who writes it reads it: gRPC servers answer in the request's encoding.
			accepts = append(accepts, w.encoding)
		}
	}
	return slices.Clip(append(opts, accept(accepts)))
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
