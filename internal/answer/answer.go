// Package answer is for the RPCs that the library itself makes, such as health checks: it
// has the options for them, and tells what ended one: a gRPC server, something else that
// speaks HTTP, or no answer at all.
//
//	var call answer.Call
//	_, err := healthpb.NewHealthClient(cc).Check(ctx, request, call.Options()...)
//	switch a := call.Of(err); a.Kind {
//	case answer.GRPC, answer.Reset:
//		// the server is alive
//	case answer.HTTP:
//		// a web server or a proxy answers there, with status a.HTTP
//	case answer.None, answer.Unsent:
//		// no answer came, or nothing was sent
//	}
//
// The status code of an RPC is not enough for that. UNAVAILABLE may come from a server that
// is about to stop, or from gRPC itself when a connection is lost; UNIMPLEMENTED may come
// from a server, or from gRPC itself when HTTP answers 404. The metadata tells them apart:
// a gRPC response has a content type in its headers, or in its trailers if it has no
// headers, and gRPC passes on neither of a response that is not gRPC.
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

// Kind says what ended an RPC.
type Kind int

const (
	// None means that the request was sent and no answer came: the time ran out, or the
	// connection was lost.
	None Kind = iota

	// GRPC means that a gRPC server answered with a message or a status. It is alive.
	GRPC

	// Reset means that the server reset the stream. It is alive and speaks HTTP/2.
	Reset

	// HTTP means that the answer was HTTP but not gRPC, at least for this method: it came
	// from a web server, or from a proxy that has no route or no backend.
	HTTP

	// Unsent means that the request was never sent: there is no connection, every stream
	// is taken, the program's credentials failed, or one of its interceptors answered by
	// itself.
	Unsent
)

// Answer says how an RPC ended.
type Answer struct {
	Kind Kind
	HTTP int // the HTTP status if Kind is HTTP
}

// Call is one unary RPC on a channel. Its zero value is ready for use, for one RPC.
type Call struct {
	header, trailer metadata.MD
	peer            peer.Peer
}

// Options returns the options for the RPC: those of [Fixed], and those by which c learns how
// it ended. They are for a *grpc.ClientConn; an RPC that is made directly on a SubConn
// ignores them, so use [OfStream] there.
func (c *Call) Options() []grpc.CallOption {
	return append(Fixed(), grpc.Header(&c.header), grpc.Trailer(&c.trailer), grpc.Peer(&c.peer))
}

// Of returns how c ended. err is the error of the RPC.
func (c *Call) Of(err error) Answer {
	return of(err, c.peer.Addr != nil, c.header, c.trailer)
}

// OfStream returns how the RPC of s ended. err is the error of the last RecvMsg, or that of
// NewStream if s is nil.
func OfStream(s grpc.ClientStream, err error) Answer {
	if s == nil {
		return of(err, false, nil, nil)
	}
	header, _ := s.Header() // its error is err
	return of(err, true, header, s.Trailer())
}

func of(err error, sent bool, header, trailer metadata.MD) Answer {
	switch {
	case err == nil, isGRPC(header), isGRPC(trailer):
		return Answer{Kind: GRPC}
	case !sent:
		return Answer{Kind: Unsent}
	}
	text := statusMessage(err)
	if code, ok := httpStatus(text); ok {
		return Answer{Kind: HTTP, HTTP: code}
	}
	// A server also resets the stream at the deadline, which is not an answer in time.
	if strings.HasPrefix(text, resetText) && status.Code(err) != codes.DeadlineExceeded {
		return Answer{Kind: Reset}
	}
	return Answer{Kind: None}
}

// statusMessage returns the message of the gRPC status in err, without what is wrapped
// around it.
func statusMessage(err error) string {
	var carrier interface{ GRPCStatus() *status.Status }
	if errors.As(err, &carrier) {
		return carrier.GRPCStatus().Message()
	}
	return err.Error()
}

// isGRPC reports whether md is the metadata of a gRPC response. gRPC passes metadata on only
// if the content type is gRPC's.
func isGRPC(md metadata.MD) bool { return len(md["content-type"]) > 0 }

// Texts of grpc-go's errors, used where nothing else tells the cases apart. A peer cannot
// fake them: a message from it comes with metadata, and the debug data of a GOAWAY is not at
// the beginning. The tests compare them with the grpc-go in go.mod.
const (
	httpText  = "unexpected HTTP status code received from server: "
	resetText = "stream terminated by RST_STREAM"
)

// httpStatus returns the HTTP status in gRPC's error for a response that is not gRPC.
func httpStatus(text string) (code int, ok bool) {
	rest, ok := strings.CutPrefix(text, httpText)
	if !ok {
		return 0, false
	}
	digits, _, _ := strings.Cut(rest, " ")
	code, err := strconv.Atoi(digits)
	return code, err == nil
}

// String returns the text for an error, such as "it answers HTTP 404 (Not Found), not gRPC".
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

// Fixed returns the options for every RPC of the library itself, so that the defaults of the
// program (grpc.WithDefaultCallOptions, the service config) do not change what the RPC
// means: it does not wait for a connection, is not compressed, and is encoded as protobuf
// even if the program's messages are not.
//
// The program's defaults can still end the RPC early (the timeout of the service config),
// repeat it (its retry policy), and add the program's credentials, which servers may need.
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

// maxMessage is more than any message of the health service needs, in bytes.
const maxMessage = 64 << 10

// plain encodes messages as protobuf. The codec registered under the name "proto" may be the
// program's own.
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

// NoVerdictError is the error of a test that could not tell whether its connection works.
// The connection is kept, and calls on it go on.
type NoVerdictError struct {
	Text  string // the text of the error
	Err   error  // what ended the test
	Alive bool   // the channel has proved meanwhile that it lives
}

func (e *NoVerdictError) Error() string { return e.Text }

// Unwrap returns what ended the test.
func (e *NoVerdictError) Unwrap() error { return e.Err }
