package scale_test

import (
	"testing"

	"github.com/davidwartell/go-grpcpool/scale"
)

func TestAChannelOpensAsManyConnectionsAsItsCallsNeed(t *testing.T) {
	gate := make(chan struct{})
	s := startServer(t, serverConfig{limit: 5, gate: gate})
	c := newChannel(t, s.addr, scale.WithMaxConnections(4))
	calls := hold(testContext(t), t, s, c.stub, 13)
	if got := c.connections(); got != 3 {
		t.Errorf("13 calls with a limit of 5 are on %d connections, want 3", got)
	}
	close(gate)
	calls.Wait()
	c.settled(t)
}

func TestAChannelNeverOpensMoreConnectionsThanAllowed(t *testing.T) {
	s := startServer(t, serverConfig{limit: 1})
	c := newChannel(t, s.addr, scale.WithMaxConnections(4))
	mustHammer(t, c.stub, 40, 50)
	if got := s.accepted.Load(); got != 4 {
		t.Errorf("the server accepted %d connections, want 4", got)
	}
	c.settled(t)
}
