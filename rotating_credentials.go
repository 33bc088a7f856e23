package grpcpool

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
)

// rotatingCredentials make each handshake under the newest identity of a rotation.
type rotatingCredentials struct {
	rotation   *rotation
	serverName string // overrides the authority of the handshake; "": does not
}

func (c *rotatingCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if c.serverName != "" {
		authority = c.serverName
	}
	return c.rotation.forHandshake(ctx).creds.ClientHandshake(ctx, authority, raw)
}

// ServerHandshake implements credentials.TransportCredentials. Nobody calls it on a
// client's credentials.
func (c *rotatingCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c.rotation.current.Load().creds.ServerHandshake(raw)
}

func (c *rotatingCredentials) Info() credentials.ProtocolInfo {
	return c.rotation.current.Load().creds.Info()
}

func (c *rotatingCredentials) Clone() credentials.TransportCredentials {
	clone := *c
	return &clone
}

// OverrideServerName implements credentials.TransportCredentials, which asks for
// it still.
func (c *rotatingCredentials) OverrideServerName(name string) error {
	c.serverName = name
	return nil
}
