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

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
)

// guard says who may be a client of a Listener.
type guard struct {
	uids  []uint32                         // of processes, on a Unix socket; nil: any
	token *[sha256.Size]byte               // hash of what calls must bring; nil: none
	tls   credentials.TransportCredentials // nil: plaintext
}

// guardCredentials lets the guards do the handshakes of their connections. gRPC
// closes a connection whose handshake fails; nothing has been sent on it before,
// but what TLS says.
type guardCredentials struct {
	logger *slog.Logger
}

// authInfo is what is known of a client's connection.
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
		c.logger.Warn("refused a client", "client", raw.RemoteAddr().String(), "why", err.Error())
		return nil, nil, err
	}
	return secured, authInfo{info, client.from}, nil
}

// handshake is done on conn, whose socket is socket.
func (g *guard) handshake(conn, socket net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if g.uids != nil {
		uid, err := peerUID(socket)
		if err != nil {
			return nil, nil, fmt.Errorf("proxy: whose process is not known: %w", err)
		}
		if !slices.Contains(g.uids, uid) {
			return nil, nil, fmt.Errorf("proxy: its process runs as uid %d, want one of %d", uid, g.uids)
		}
	}
	if g.tls == nil {
		return conn, nil, nil
	}
	return g.tls.ServerHandshake(conn)
}

// ClientHandshake implements credentials.TransportCredentials.
func (guardCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("proxy: these credentials are a server's")
}

// Info implements credentials.TransportCredentials.
func (guardCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "local"}
}

// Clone implements credentials.TransportCredentials.
func (c guardCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements credentials.TransportCredentials.
func (guardCredentials) OverrideServerName(string) error { return nil }

// checkToken is asked of every call before gRPC has made anything of it, on the
// goroutine that reads the client's connection.
func (s *Server) checkToken(ctx context.Context, info *tap.Info) (context.Context, error) {
	p, _ := peer.FromContext(ctx)
	auth, ok := p.AuthInfo.(authInfo)
	if !ok {
		return ctx, status.Error(codes.Internal, "grpcpool proxy: a connection without a guard")
	}
	if g := auth.from.guard.Load(); g.token == nil || g.hasToken(info.Header) {
		return ctx, nil
	}
	s.counts.refused.Add(1)
	return ctx, status.Error(codes.Unauthenticated, "grpcpool proxy: want its token: metadata "+tokenHeader+": Bearer <token>")
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
	hash := sha256.Sum256([]byte(token)) // so that the length is not told either
	return subtle.ConstantTimeCompare(hash[:], g.token[:]) == 1
}
