package tap

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"
)

// Credentials returns credentials that work as inner does and attach s to the connection
// when a client's handshake is done. Clones attach the same s.
func Credentials(inner credentials.TransportCredentials, s *State) credentials.TransportCredentials {
	return &tapCredentials{TransportCredentials: inner, state: s}
}

type tapCredentials struct {
	credentials.TransportCredentials

	state *State
}

// ClientHandshake implements credentials.TransportCredentials.
func (c *tapCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	socket := c.state.reach(raw)
	conn, info, err := c.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		if why := socket.killed(); why != nil {
			err = why
		}
		return conn, info, err
	}
	return c.state.Wrap(conn, info), info, nil
}

// Clone implements credentials.TransportCredentials.
func (c *tapCredentials) Clone() credentials.TransportCredentials {
	return Credentials(c.TransportCredentials.Clone(), c.state)
}

// Bundle returns credentials for balancer.NewSubConnOptions.CredsBundle that attach s to the
// SubConn's connection: inner, and perRPC unless it is nil. gRPC uses the channel's own
// per-RPC credentials too, so perRPC must be those of the channel's bundle, not those of its
// dial options.
//
// The bundle has no modes. If the channel was given a bundle, use [WrapBundle].
func Bundle(inner credentials.TransportCredentials, perRPC credentials.PerRPCCredentials, s *State) credentials.Bundle {
	return &tapBundle{transport: Credentials(inner, s), perRPC: perRPC, state: s}
}

// WrapBundle is [Bundle] for credentials that are a bundle. It keeps the per-RPC
// credentials and the modes of inner.
func WrapBundle(inner credentials.Bundle, s *State) credentials.Bundle {
	return &tapBundle{
		transport: Credentials(inner.TransportCredentials(), s),
		perRPC:    inner.PerRPCCredentials(),
		inner:     inner,
		state:     s,
	}
}

type tapBundle struct {
	transport credentials.TransportCredentials
	perRPC    credentials.PerRPCCredentials // may be nil
	inner     credentials.Bundle            // nil when made from its parts
	state     *State
}

// TransportCredentials implements credentials.Bundle.
func (b *tapBundle) TransportCredentials() credentials.TransportCredentials { return b.transport }

// PerRPCCredentials implements credentials.Bundle.
func (b *tapBundle) PerRPCCredentials() credentials.PerRPCCredentials { return b.perRPC }

// NewWithMode implements credentials.Bundle.
func (b *tapBundle) NewWithMode(mode string) (credentials.Bundle, error) {
	if b.inner == nil {
		return nil, fmt.Errorf("tap: these credentials have no mode %q; give the channel a credentials bundle that has it", mode)
	}
	inner, err := b.inner.NewWithMode(mode)
	if err != nil {
		return nil, fmt.Errorf("tap: switching the credentials to mode %q: %w", mode, err)
	}
	return WrapBundle(inner, b.state), nil
}
