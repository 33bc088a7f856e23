package proxy

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/davidwartell/go-grpcpool/internal/logline"
)

// guard decides who may connect to a Listener.
type guard struct {
	uids  []uint32                         // of the processes that may connect to a Unix socket; nil: any
	token *[sha256.Size]byte               // hash of the token that calls must send; nil: none
	tls   credentials.TransportCredentials // nil: plaintext
}

// guardCredentials lets a Listener's guard do the handshake of its connections. gRPC
// closes a connection whose handshake fails. Nothing is sent before, except for TLS's own
// records.
type guardCredentials struct {
	logger  *slog.Logger
	refused *logline.Recurring
}

// authInfo describes a client's connection.
type authInfo struct {
	credentials.AuthInfo // nil without TLS

	from *Listener
}

// AuthType implements credentials.AuthInfo.
func (a authInfo) AuthType() string {
	if a.AuthInfo == nil {
		return "local"
	}
	return a.AuthInfo.AuthType()
}

// ServerHandshake implements credentials.TransportCredentials.
func (c guardCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	client, err := clientOf(raw)
	if err != nil {
		return nil, nil, err
	}
	secured, info, err := client.from.guard.Load().handshake(raw, client.Conn)
	if err != nil {
		c.logRefused(raw.RemoteAddr(), err)
		return nil, nil, err
	}
	return secured, authInfo{info, client.from}, nil
}

// logRefused logs that a client was refused: once, and again every ten minutes while clients are.
func (c guardCredentials) logRefused(client net.Addr, err error) {
	suppressed, tell := c.refused.Note(time.Now(), 1)
	if !tell {
		c.logger.Debug("client refused", slog.String("client", client.String()), logline.Text(err))
		return
	}
	attrs := []slog.Attr{slog.String("client", client.String()), logline.Text(err), slog.String(logline.Hint, hintRefused)}
	if suppressed > 0 {
		attrs = append(attrs, slog.Int(logline.Suppressed, suppressed))
	}
	c.logger.LogAttrs(context.Background(), slog.LevelWarn, "client refused", attrs...)
}

const hintRefused = "if it is one of yours, run it as an allowed user, or give it a certificate that the listener accepts"

// handshake does the handshake on conn, whose socket is socket.
func (g *guard) handshake(conn, socket net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if g.uids != nil {
		uid, err := peerUID(socket)
		if err != nil {
			return nil, nil, fmt.Errorf("proxy: looking up the user of the client's process: %w", err)
		}
		if !slices.Contains(g.uids, uid) {
			return nil, nil, fmt.Errorf("proxy: the client's process runs as uid %d; allowed are %d", uid, g.uids)
		}
	}
	if g.tls == nil {
		return conn, nil, nil
	}
	return g.tls.ServerHandshake(conn)
}

// ClientHandshake implements credentials.TransportCredentials.
func (guardCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("proxy: these credentials are for servers only")
}

// Info implements credentials.TransportCredentials.
func (guardCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "local"}
}

// Clone implements credentials.TransportCredentials.
func (c guardCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements credentials.TransportCredentials.
func (guardCredentials) OverrideServerName(string) error { return nil }

// checkToken checks a call's token before gRPC has created a stream for it, on the
// goroutine that reads the client's connection.
func (s *Server) checkToken(ctx context.Context, info *tap.Info) (context.Context, error) {
	p, _ := peer.FromContext(ctx)
	auth, ok := p.AuthInfo.(authInfo)
	if !ok {
		return ctx, status.Error(codes.Internal, "grpcpool proxy: internal error: the connection has no guard")
	}
	if g := auth.from.guard.Load(); g.token == nil || g.hasToken(info.Header) {
		return ctx, nil
	}
	s.counts.refused.Add(1)
	return ctx, status.Error(codes.Unauthenticated, "grpcpool proxy: the call has no valid token; send the metadata "+tokenHeader+": Bearer <token>")
}

func (g *guard) hasToken(md metadata.MD) bool {
	values := md.Get(tokenHeader)
	if len(values) != 1 {
		return false
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "bearer") {
		return false
	}
	hash := sha256.Sum256([]byte(token)) // hides the length too
	return subtle.ConstantTimeCompare(hash[:], g.token[:]) == 1
}
