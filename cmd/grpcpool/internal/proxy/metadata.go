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

// tokenHeader is the header with the proxy's token. The authorization header is for the
// server (RFC 9110, section 11.7).
const tokenHeader = "proxy-authorization"

// acceptHeader lists the encodings that a client can read.
const acceptHeader = "grpc-accept-encoding"

// isHop reports whether a header is not forwarded, because it belongs to one connection
// (RFC 9113, section 8.2.2) or gRPC writes its own. gRPC itself hides its other headers
// (grpc-timeout, grpc-encoding, grpc-status and so on).
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

// transportStream gives access to properties of a client's call for which gRPC has no
// function. grpc.ServerTransportStreamFromContext returns one.
type transportStream interface {
	RecvCompress() string
	ContentSubtype() string
}

// wire describes how the messages of a call are encoded.
type wire struct {
	encoding string // of the client's compressed messages; "" if it does not compress
	accepts  string // encodings that the client can read, comma-separated
	subtype  string // of the content type; it names the codec
}

// wireOf describes a call. md is its metadata as the client sent it.
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

// optionsFor returns the options of a call to the server, for a client's call w.
func (s *Server) optionsFor(w wire) []grpc.CallOption {
	if len(w.accepts)+len(w.subtype)+len(w.encoding) > maxMemoKey {
		return w.callOptions(s.callOptions)
	}
	opts, _ := s.options.get(w, func(w wire) []grpc.CallOption { return w.callOptions(s.callOptions) })
	return opts
}

// callOptions adds w's options to fixed. The result has no spare capacity, so that an
// append copies it.
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
			// The client can read what it writes, and gRPC servers answer in the request's
			// encoding.
			accepts = append(accepts, w.encoding)
		}
	}
	return slices.Clip(append(opts, accept(accepts)))
}

// accept offers these encodings to the server, possibly none.
func accept(names []string) grpc.CallOption {
	if len(names) > 0 {
		return experimental.AcceptCompressors(names...)
	}
	if encoding.GetCompressor(noEncoding) == nil {
		return grpc.EmptyCallOption{} // RegisterEncodings was not called
	}
	return experimental.AcceptCompressors(noEncoding)
}
