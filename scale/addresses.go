package scale

import (
	"context"
	"net"
	"slices"

	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/resolver"
)

// UpdateAddresses implements balancer.SubConn. Connections to an address that stays
// go on. The others finish their RPCs, and if none is left the child is told IDLE and
// connects to the new addresses. A backoff goes on, as in gRPC. The deprecated method
// has one user left in grpc-go, grpclb.
func (s *subchannel) UpdateAddresses(addrs []resolver.Address) {
	addrs = slices.Clone(addrs)
	s.update(func(e *effects) {
		if s.closed || len(addrs) == 0 || slices.EqualFunc(*s.addrs.Load(), addrs, sameAddress) {
			return
		}
		s.addrs.Store(&addrs)
		s.held.stop()
		s.retireTrialsLocked(addrs, e) // before what they are to succeed
		for c := range s.all {
			s.leaveAddressLocked(c, addrs, e)
		}
	})
}

// leaveAddressLocked retires c, or gives it the new addresses addrs, unless it is connected
// to one of them.
func (s *subchannel) leaveAddressLocked(c *connection, addrs []resolver.Address, e *effects) {
	switch c.phase {
	case phaseTrial: // it is to one of them
	case phaseObserved, phaseDraining, phaseRetired: // it takes no calls, and its end follows
	case phaseReady:
		if !c.isTo(addrs) {
			s.removeLocked(c, e)
			s.retireLocked(c, e)
			e.publish = true
		}
	case phaseIdle, phaseBackoff:
		if s.state == connectivity.Idle || s.state == connectivity.TransientFailure {
			e.readdress = append(e.readdress, c)
		} else {
			s.retireLocked(c, e)
		}
	case phaseDialling, phaseHeld:
		s.successorFailedLocked(c)
		s.retireLocked(c, e)
	}
}

// retireTrialsLocked ends the trials of connections to other addresses.
func (s *subchannel) retireTrialsLocked(addrs []resolver.Address, e *effects) {
	for c := range s.all {
		if c.phase == phaseTrial && !c.isTo(addrs) {
			s.successorFailedLocked(c)
			s.retireLocked(c, e)
		}
	}
}

// sameAddress is what gRPC calls equal. What only LB policies see makes no difference
// to a connection.
func sameAddress(a, b resolver.Address) bool {
	return a.Addr == b.Addr && a.ServerName == b.ServerName && a.Attributes.Equal(b.Attributes) &&
		a.Metadata == b.Metadata //nolint:staticcheck // grpclb still uses it
}

// isTo reports whether c is connected to one of addrs.
func (c *connection) isTo(addrs []resolver.Address) bool {
	to := c.to.Load()
	return to != nil && slices.ContainsFunc(addrs, func(a resolver.Address) bool { return sameAddress(*to, a) })
}

// readdress has c, which has not been told to connect, dial other addresses.
func (c *connection) readdress(addrs []resolver.Address) {
	c.sc.UpdateAddresses(c.numbered(addrs)) //nolint:staticcheck // as is subchannel.UpdateAddresses, which leads here
}

// addressKey is the attribute of an address by which the handshake knows it.
type addressKey struct{}

// numbered returns addrs for c's SubConn. Of several, gRPC does not tell which it is
// connected to, but hands that one's attributes to the handshake.
func (c *connection) numbered(addrs []resolver.Address) []resolver.Address {
	if len(addrs) == 1 {
		c.to.Store(&addrs[0])
		return addrs
	}
	numbered := slices.Clone(addrs)
	for i := range numbered {
		numbered[i].Attributes = numbered[i].Attributes.WithValue(addressKey{}, &addrs[i])
	}
	return numbered
}

// addressBundle notes which address of its connection a handshake is with.
type addressBundle struct {
	credentials.Bundle

	conn *connection
}

// TransportCredentials implements credentials.Bundle.
func (b addressBundle) TransportCredentials() credentials.TransportCredentials {
	return addressCredentials{b.Bundle.TransportCredentials(), b.conn}
}

type addressCredentials struct {
	credentials.TransportCredentials

	conn *connection
}

// ClientHandshake implements credentials.TransportCredentials.
func (c addressCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if to, ok := credentials.ClientHandshakeInfoFromContext(ctx).Attributes.Value(addressKey{}).(*resolver.Address); ok {
		c.conn.to.Store(to)
	}
	return c.TransportCredentials.ClientHandshake(ctx, authority, raw)
}

// Clone implements credentials.TransportCredentials.
func (c addressCredentials) Clone() credentials.TransportCredentials {
	return addressCredentials{c.TransportCredentials.Clone(), c.conn}
}
