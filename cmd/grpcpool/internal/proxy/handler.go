package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/internal/logline"
	"github.com/davidwartell/go-grpcpool/internal/reason"
)

// The two kinds of a call to the server. Any call may be streaming in both directions,
// unless its request has already ended: then message and end are sent in one frame.
var (
	anyStream  = &grpc.StreamDesc{StreamName: "proxy", ServerStreams: true, ClientStreams: true}
	oneRequest = &grpc.StreamDesc{StreamName: "proxy", ServerStreams: true}
)

// handle is the handler of every call.
func (s *Server) handle(_ any, client grpc.ServerStream) error {
	method, ok := grpc.Method(client.Context())
	if !ok {
		return status.Error(codes.Internal, "grpcpool proxy: internal error: the call has no method")
	}
	if err := s.admit(); err != nil {
		return err
	}
	var err error
	if s.health != nil && isHealth(method) {
		err = s.handleHealth(client, method)
	} else {
		err = s.pass(client, method, nil)
	}
	s.release(err)
	if err != nil && s.cfg.Logger.Enabled(client.Context(), slog.LevelDebug) {
		s.cfg.Logger.Debug("call failed", slog.String("method", reason.OneLine(method)), logline.Text(err))
	}
	return err
}

// call is a call on its way through. The handler's goroutine reads what the client sends.
// If that comes in one piece, as a unary call's request does, the goroutine then opens the
// server's stream, sends the piece, and forwards the answer. Otherwise a second goroutine
// does these, since each side may wait for the other.
//
//	client --RecvMsg--> upload   --SendMsg--> server
//	client <--SendMsg-- download <--RecvMsg-- server
//
// The client's context is the call's: its deadline, its cancellation, the loss of its
// connection, and the end of the handler end the server's stream. The end of the server's
// stream ends download, then the client's stream with the server's status, and so upload.
// Messages are forwarded one at a time: a side that does not read makes the other wait,
// through gRPC's flow control.
type call struct {
	client   grpc.ServerStream
	shape    *shape
	waits    *waits
	upstream *upstream
	method   string
	encoding string // of the client's compressed messages
	options  []grpc.CallOption

	ctx    context.Context //nolint:containedctx // of the server's stream
	note   note            // the parent of ctx
	begin  beginning
	wait   wait              // for begin
	server grpc.ClientStream // nil if it could not be opened
	ready  chan struct{}     // closed when server is set, or the stream could not be opened
	ended  chan struct{}     // closed when takeOver has written the status
	err    error             // of takeOver; read it when ended is closed
}

// pass forwards a call. first is its first message, if that has been read already.
func (s *Server) pass(client grpc.ServerStream, method string, first *message) error {
	md, _ := metadata.FromIncomingContext(client.Context()) // a copy
	w := wireOf(client.Context(), md)
	c := &call{
		client: client, shape: s.shapes.of(method), waits: &s.waits, upstream: &s.upstream, method: method,
		encoding: w.encoding, options: s.optionsFor(w),
		begin: beginning{first: first},
		ready: make(chan struct{}), ended: make(chan struct{}),
	}
	dropHop(md)
	c.note.init(metadata.NewOutgoingContext(client.Context(), md))
	ctx, cancel := context.WithCancel(&c.note)
	defer cancel()
	c.ctx = ctx
	if c.shape.streamsUp.Load() {
		c.expired()
	} else {
		s.waits.begin(&c.wait, c)
	}
	whole, err := c.upload()
	s.waits.end(&c.wait)
	if whole {
		return c.answer(c.begin.first, true)
	}
	if !c.begin.taken { // and it cannot be any more
		if m := c.begin.first; m != nil {
			m.free()
		}
		return err // the client's stream has failed, and gRPC has sent its status
	}
	if err != nil && !errors.Is(err, io.EOF) {
		cancel() // the client gets the status of the failed stream, from takeOver
	}
	<-c.ended
	return c.err
}

// expired implements expirer.
func (c *call) expired() { c.takeOver() }

// takeOver starts a goroutine that opens the server's stream with what has been received
// so far, and forwards what the server sends. pass waits for its end.
func (c *call) takeOver() {
	first, ok := c.begin.take()
	if !ok {
		return
	}
	go func() {
		defer close(c.ended)
		c.err = c.answer(first, false)
		// This ends upload, which may wait for the client.
		if stream, ok := grpc.ServerTransportStreamFromContext(c.client.Context()).(statusWriter); ok {
			_ = stream.WriteStatus(status.Convert(c.err)) // fails only if the client's connection is lost
		}
	}()
}

// statusWriter is implemented by gRPC's stream to a client, see transportStream. It ends
// the stream before the handler returns, whose own status is then ignored.
type statusWriter interface {
	WriteStatus(st *status.Status) error
}

// answer opens the server's stream and forwards the answer. It returns the status of the
// call.
func (c *call) answer(first *message, whole bool) error {
	err := c.open(first, whole)
	if err == nil {
		err = c.download()
	}
	return explain(c.client.Context(), err)
}

// open opens the server's stream, sends what has been received, and lets upload continue.
func (c *call) open(first *message, whole bool) error {
	defer close(c.ready)
	desc := anyStream
	if whole {
		desc = oneRequest
	}
	server, err := c.upstream.newStream(c.ctx, desc, c.method, c.options...)
	if err != nil {
		if first != nil {
			first.free()
		}
		return err
	}
	c.server = server
	if first != nil {
		err = send(server, first, c.encoding)
	}
	if whole && (err == nil || errors.Is(err, io.EOF)) {
		err = server.CloseSend() // a no-op after oneRequest
	}
	if errors.Is(err, io.EOF) {
		return nil // the stream has ended; download reads its status
	}
	return err
}

// sender is a stream to the client or to the server.
type sender interface{ SendMsg(m any) error }

// send forwards m and leaves it empty.
func send(to sender, m *message, encoded string) error {
	defer m.free() // unless Marshal has passed it on
	if m.compressed && encoded == "" {
		return status.Error(codes.Internal, "grpcpool proxy: compressed message on a stream without grpc-encoding")
	}
	if encoded == "" || m.compressed || m.data.Len() == 0 {
		return to.SendMsg(m)
	}
	prepared, err := plain(m)
	if err != nil {
		return err
	}
	return to.SendMsg(prepared)
}

// answerIn sets the encoding announced to the client. gRPC has chosen the request's.
func answerIn(ctx context.Context, name, requestEncoding string) error {
	if name == requestEncoding {
		return nil
	}
	if name == "" {
		name = encoding.Identity
	}
	if err := grpc.SetSendCompressor(ctx, name); err != nil {
		return status.Errorf(codes.Internal, "grpcpool proxy: the server answered in the encoding %q, which the client does not accept", name)
	}
	return nil
}

// lost are grpc-go's texts for a connection that was lost during a call. They do not say
// which connection, and the client would take it for its own.
var lost = []string{"error reading from server: ", "closing transport due to: ", "transport is closing", "keepalive ping failed"}

func isLost(st *status.Status) bool {
	return st.Code() == codes.Unavailable && len(st.Details()) == 0 &&
		slices.ContainsFunc(lost, func(words string) bool { return strings.HasPrefix(st.Message(), words) })
}

// explain turns an error into the status of the client's call.
func explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if st, ok := status.FromError(err); ok {
		if isLost(st) {
			return status.Errorf(codes.Unavailable, "grpcpool proxy: the connection to the server was lost: %s", st.Message())
		}
		return err
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	return status.Errorf(codes.Unavailable, "grpcpool proxy: %v", err)
}
