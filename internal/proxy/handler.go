package proxy

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"
)

// streamDesc is every method's: what is not known to be unary may be anything.
var streamDesc = &grpc.StreamDesc{StreamName: "proxy", ServerStreams: true, ClientStreams: true}

// handle is every call's handler. The goroutine that gRPC gave it carries what the
// server sends; a second one carries what the client sends, since each side may
// wait for the other.
//
//	client --RecvMsg--> upload   --SendMsg--> server
//	client <--SendMsg-- download <--RecvMsg-- server
//
// The client's context is the call's: its deadline, its cancellation, the loss of
// its connection, and the end of this handler end the server's stream. The end of
// the server's stream ends download, and so the handler, and so the client's
// stream, with the server's status. Messages go on one at a time: who does not
// read makes the other side wait, through gRPC's flow control.
func (s *Server) handle(_ any, client grpc.ServerStream) error {
	ctx := client.Context()
	method, ok := grpc.Method(ctx)
	if !ok {
		return status.Error(codes.Internal, "grpcpool proxy: the call has no method")
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
	if err != nil {
		s.cfg.Logger.Debug("a call failed", "method", method, "why", err)
	}
	return err
}

// pass passes a call through. first is its first message, if that has been read.
func (s *Server) pass(client grpc.ServerStream, method string, first *message) error {
	w := wireOf(client.Context())
	note := newNote()
	ctx, cancel := context.WithCancel(note.attach(passOn(client.Context())))
	defer cancel()
	server, err := s.upstream.newStream(ctx, method, w.callOptions(s.callOptions)...)
	if err != nil {
		return explain(client.Context(), err)
	}
	s.uploads.Go(func() {
		if err := upload(client, server, first, w.encoding); err != nil {
			cancel()
		}
	})
	return explain(client.Context(), download(client, server, note, w.encoding))
}

// upload carries messages to the server until the client has no more, and then
// says so; first is one that has been read already, or nil. An error that it
// returns is of no further use: the client's stream, or the server's, has its own,
// which download returns.
func upload(client grpc.ServerStream, server grpc.ClientStream, first *message, encoded string) error {
	m := first
	for {
		if m == nil {
			m = new(message)
			if err := client.RecvMsg(m); errors.Is(err, io.EOF) {
				return server.CloseSend()
			} else if err != nil {
				return err
			}
		}
		if err := send(server, m, encoded); errors.Is(err, io.EOF) {
			return nil // the server has ended the stream; its status comes by download
		} else if err != nil {
			return err
		}
		m = nil
	}
}

// download carries headers, messages and trailers to the client. It returns the
// status of the call.
func download(client grpc.ServerStream, server grpc.ClientStream, note *note, requestEncoding string) error {
	header, err := server.Header()
	if err != nil {
		return err
	}
	encoded := ""
	if header != nil { // else the server sent trailers only, and so shall we
		if encoded, err = note.encoding(client.Context()); err != nil {
			return err
		}
		if err := answerIn(client.Context(), encoded, requestEncoding); err != nil {
			return err
		}
		dropHop(header)
		if err := client.SendHeader(header); err != nil {
			return err
		}
	}
	m := new(message)
	for {
		if err := server.RecvMsg(m); err != nil {
			trailer := server.Trailer()
			dropHop(trailer)
			client.SetTrailer(trailer)
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := send(client, m, encoded); err != nil {
			return err
		}
	}
}

// send passes m on, which is empty then.
func send(to grpc.Stream, m *message, encoded string) error {
	defer m.free() // if it did not come to Marshal
	if m.compressed && encoded == "" {
		return status.Error(codes.Internal, "grpcpool proxy: a compressed message in a stream that announced no encoding")
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

// answerIn makes the messages to the client be announced in an encoding. gRPC has
// settled for that of the request.
func answerIn(ctx context.Context, name, requestEncoding string) error {
	if name == requestEncoding {
		return nil
	}
	if name == "" {
		name = encoding.Identity
	}
	if err := grpc.SetSendCompressor(ctx, name); err != nil {
		return status.Errorf(codes.Internal, "grpcpool proxy: the server answered in the encoding %q, which the client did not offer", name)
	}
	return nil
}

// explain makes an error fit for being a call's status.
func explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	return status.Errorf(codes.Unavailable, "grpcpool proxy: %v", err)
}
