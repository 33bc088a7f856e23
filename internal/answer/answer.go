// Package answer makes the RPCs that the library makes for itself, and tells who
// ended one: the server, something that is no gRPC server, or nobody.
//
// The code of an RPC does not say that. UNAVAILABLE is what a server answers that
// is about to go, and what gRPC makes of a connection that is gone; UNIMPLEMENTED
// is a server's word, and what gRPC makes of HTTP's 404. What tells them apart is
// what has come: a gRPC response carries a content type in its headers, or in its
// trailers if it has no headers, and gRPC hands out neither of a response that is
// not gRPC's.
package answer

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Kind is who ended an RPC.
type Kind int

const (
	// None is for a request that was put on a connection when nothing came back: time
	// ran out, or the connection was lost.
	None Kind = iota

	// GRPC is for a server that answered, by a message or by a status. It is alive.
	GRPC

	// Reset is for a server that reset the stream. It is alive, and speaks HTTP/2.
	Reset

	// HTTP is for what answered and is no gRPC server, at least not for this method:
	// a web server, or a proxy that has no route or no backend.
	HTTP

	// Unsent is for a request that was never put on a connection. There is none, every stream
	// is taken, the program's credentials failed, or one of its interceptors answered
	// by itself.
	Unsent
)

// Answer is how an RPC ended.
type Answer struct {
	Kind Kind
	HTTP int // the HTTP status, for Kind HTTP
}

// Call is one unary RPC on a channel. Its zero value is ready for that.
type Call struct {
	header, trailer metadata.MD
	peer            peer.Peer
}

// Options are the options of the RPC: [Fixed], and those by which c learns how it
// ended. They are for a *grpc.ClientConn. A SubConn's own RPCs tell nothing by
// options: see [OfStream].
func (c *Call) Options() []grpc.CallOption {
	return append(Fixed(), grpc.Header(&c.header), grpc.Trailer(&c.trailer), grpc.Peer(&c.peer))
}

// Of is how c ended, given the RPC's error.
func (c *Call) Of(err error) Answer {
	return of(err, c.peer.Addr != nil, c.header, c.trailer)
}

// OfStream is how an RPC ended that was made by s, given the error of its last
// RecvMsg, or of NewStream if s is nil.
func OfStream(s grpc.ClientStream, err error) Answer {
	if s == nil {
		return of(err, false, nil, nil)
	}
	header, _ := s.Header() // the error is err
	return of(err, true, header, s.Trailer())
}

func of(err error, sent bool, header, trailer metadata.MD) Answer {
	switch {
	case err == nil, isGRPC(header), isGRPC(trailer):
		return Answer{Kind: GRPC}
	case !sent:
		return Answer{Kind: Unsent}
	}
	text := words(err)
	if code, ok := httpStatus(text); ok {
		return Answer{Kind: HTTP, HTTP: code}
	}
	// At the deadline a server resets the stream too: that is no answer in time.
	if strings.HasPrefix(text, resetText) && status.Code(err) != codes.DeadlineExceeded {
		return Answer{Kind: Reset}
	}
	return Answer{Kind: None}
}

// words is what gRPC says in err, without what others have put around it.
func words(err error) string {
	var carrier interface{ GRPCStatus() *status.Status }
	if errors.As(err, &carrier) {
		return carrier.GRPCStatus().Message()
	}
	return err.Error()
}

// isGRPC is true of the metadata that begins a gRPC response. gRPC gives it out
// only when the content type was gRPC's.
func isGRPC(md metadata.MD) bool { return len(md["content-type"]) > 0 }

// gRPC's own words, where there is nothing else to go by. A peer cannot put them
// into our mouth: a message that it sends comes with metadata, and the debug data of
// a GOAWAY stands further behind. The tests hold them against the grpc-go of go.mod.
const (
	httpText  = "unexpected HTTP status code received from server: "
	resetText = "stream terminated by RST_STREAM"
)

// httpStatus is the HTTP status in gRPC's error for a response that is not gRPC's.
func httpStatus(text string) (code int, ok bool) {
	rest, ok := strings.CutPrefix(text, httpText)
	if !ok {
		return 0, false
	}
	digits, _, _ := strings.Cut(rest, " ")
	code, err := strconv.Atoi(digits)
	return code, err == nil
}

// String is what an error says of it, such as "it answers HTTP 404 (Not Found), not
// gRPC".
func (a Answer) String() string {
	switch a.Kind {
	case GRPC:
		return "it answers"
	case Reset:
		return "it resets the stream"
	case HTTP:
		return fmt.Sprintf("it answers HTTP %d (%s), not gRPC", a.HTTP, http.StatusText(a.HTTP))
	case Unsent:
		return "the call was not sent"
	case None:
	}
	return "no answer"
}

// Fixed are the options that every RPC of the library's own is made with, so that
// the defaults of the program (grpc.WithDefaultCallOptions, its service config)
// do not change what it means: it does not wait for a connection, is not
// compressed, and is encoded as protobuf whatever the program's own messages are.
//
// What a program's defaults can still do is to end it early (the service config's
// timeout), to make it again (its retry policy), and to send it the program's
// credentials, which servers may ask for.
func Fixed() []grpc.CallOption {
	return []grpc.CallOption{
		grpc.WaitForReady(false),
		grpc.UseCompressor(encoding.Identity),
		grpc.CallContentSubtype(""),
		grpc.ForceCodecV2(plain{}),
		grpc.MaxCallRecvMsgSize(maxMessage),
		grpc.MaxCallSendMsgSize(maxMessage),
	}
}

// maxMessage is more than any message of the health service takes.
const maxMessage = 64 << 10

// plain encodes as protobuf. What is registered under that name may be the program's.
type plain struct{}

// Name implements encoding.CodecV2. Without a name the content type stays
// application/grpc, as it is for an RPC without options.
func (plain) Name() string { return "" }

// Marshal implements encoding.CodecV2.
func (plain) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("answer: %T is not a protobuf message", v)
	}
	data, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("answer: encoding %T: %w", v, err)
	}
	return mem.BufferSlice{mem.SliceBuffer(data)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (plain) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("answer: %T is not a protobuf message", v)
	}
	if err := proto.Unmarshal(data.Materialize(), m); err != nil {
		return fmt.Errorf("answer: decoding %T: %w", v, err)
	}
	return nil
}

// NoVerdictError ends a test that says nothing about the connection that it was made
// on: the connection stays, and calls on it tell by themselves how they fare.
type NoVerdictError struct {
	Text string // for people
	Err  error  // what ended the test
}

func (e *NoVerdictError) Error() string { return e.Text }

// Unwrap returns what ended the test.
func (e *NoVerdictError) Unwrap() error { return e.Err }
