package identity

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"

	"github.com/davidwartell/go-grpcpool/scale"
)

// rotatingCredentials show the newest identity of a provider in each handshake.
type rotatingCredentials struct {
	provider   *Provider
	serverName string // replaces the authority in the handshake, unless it is ""
}

// Replacer tells package scale who replaces the connections.
func (c *rotatingCredentials) Replacer() *scale.Replacer {
	if c.provider.ready() != nil {
		return nil
	}
	return &c.provider.replacer
}

func (c *rotatingCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if err := c.provider.ready(); err != nil {
		return nil, nil, err
	}
	if c.serverName != "" {
		authority = c.serverName
	}
	return c.provider.forHandshake(ctx).creds.ClientHandshake(ctx, authority, raw)
}

// ServerHandshake implements credentials.TransportCredentials. It is not called on a
// client's credentials.
func (c *rotatingCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if err := c.provider.ready(); err != nil {
		return nil, nil, err
	}
	return c.provider.current.Load().creds.ServerHandshake(raw)
}

func (c *rotatingCredentials) Info() credentials.ProtocolInfo {
	if c.provider.ready() != nil {
		return credentials.ProtocolInfo{SecurityProtocol: "tls"}
	}
	info := c.provider.current.Load().creds.Info()
	if c.serverName != "" { // gRPC takes it for the authority, and refuses another
		info.ServerName = c.serverName //nolint:staticcheck // deprecated, and gRPC still reads it
	}
	return info
}

func (c *rotatingCredentials) Clone() credentials.TransportCredentials {
	clone := *c
	return &clone
}

// OverrideServerName implements credentials.TransportCredentials, where it is deprecated
// and still required.
func (c *rotatingCredentials) OverrideServerName(name string) error {
	c.serverName = name
	return nil
}
