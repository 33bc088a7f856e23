package scale

import (
	"errors"
	"sync"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"
)

// childPolicy is a child policy and what it sees of the channel. When the service
// config names another policy, the old one picks until the new one is connected or has failed.
type childPolicy struct {
	balancer.ClientConn // the policy's own; the child gets at it through the methods below

	policy   *policy
	name     string
	balancer balancer.Balancer // set once it is built, before anything is told to it

	// calls keeps Close apart from the states of subchannels: a child that is
	// replaced is closed on another goroutine than gRPC's. It is the one lock that
	// is held while the child is called.
	calls sync.Mutex

	// Guarded by policy.mu.
	state       balancer.State // what it reported last
	subchannels map[*subchannel]struct{}
}

var errReplaced = errors.New("scale: the LB policy was closed or replaced")

// switchTo builds a child, which is used at once if there is none, and otherwise
// when UpdateState says so.
func (p *policy) switchTo(b balancer.Builder) *childPolicy {
	child := &childPolicy{
		ClientConn: p.cc,
		policy:     p,
		name:       b.Name(),
		state: balancer.State{
			ConnectivityState: connectivity.Connecting,
			Picker:            base.NewErrPicker(balancer.ErrNoSubConnAvailable),
		},
		subchannels: make(map[*subchannel]struct{}),
	}
	p.mu.Lock()
	abandoned := p.pending
	if p.current == nil {
		p.current = child
	} else {
		p.pending = child
	}
	p.mu.Unlock()
	if abandoned != nil {
		abandoned.close()
	}
	child.balancer = b.Build(child, p.opts) // may call back
	return child
}

// close closes the child and what it left open. It must not be current or pending
// any more.
func (c *childPolicy) close() {
	c.calls.Lock()
	defer c.calls.Unlock()
	c.balancer.Close()
	c.policy.mu.Lock()
	left := c.subchannels
	c.subchannels = nil
	c.policy.mu.Unlock()
	for s := range left {
		s.Shutdown()
	}
}

// tell tells the child a state of its subchannel s.
func (c *childPolicy) tell(s *subchannel, state balancer.SubConnState) {
	if state.ConnectivityState == connectivity.Ready && s.opts.HealthCheckEnabled {
		s.RegisterHealthListener(s.opts.StateListener) // READY comes from there
		return
	}
	c.call(func() { s.opts.StateListener(state) })
}

// call runs f, which calls the child, unless the child is closed.
func (c *childPolicy) call(f func()) {
	c.calls.Lock()
	defer c.calls.Unlock()
	if c.inUse() {
		f()
	}
}

// inUse reports whether the child is current or pending.
func (c *childPolicy) inUse() bool {
	c.policy.mu.Lock()
	defer c.policy.mu.Unlock()
	return c == c.policy.current || c == c.policy.pending
}

// forget is called when the child has shut s down.
func (c *childPolicy) forget(s *subchannel) {
	c.policy.mu.Lock()
	defer c.policy.mu.Unlock()
	delete(c.subchannels, s)
}

// UpdateState implements balancer.ClientConn. The pending child takes over when it
// is no longer CONNECTING, or when the current one is not READY.
func (c *childPolicy) UpdateState(state balancer.State) {
	p := c.policy
	p.mu.Lock()
	defer p.mu.Unlock()
	c.state = state
	if c != p.current && c != p.pending {
		return
	}
	if p.pending != nil && (p.current.state.ConnectivityState != connectivity.Ready ||
		p.pending.state.ConnectivityState != connectivity.Connecting) {
		replaced := p.current
		p.current, p.pending = p.pending, nil
		p.tasks.run(replaced.close) // the caller may be in the middle of a call of it
	}
	if c == p.current || p.pending == nil {
		p.publishLocked()
	}
}

// NewSubConn implements balancer.ClientConn.
func (c *childPolicy) NewSubConn(addrs []resolver.Address, opts balancer.NewSubConnOptions) (balancer.SubConn, error) {
	if len(addrs) == 0 {
		return nil, errors.New("scale: NewSubConn: no addresses")
	}
	if !c.inUse() {
		return nil, errReplaced
	}
	var s *subchannel
	if opts.StateListener == nil { // a policy that is older than StateListener
		opts.StateListener = func(state balancer.SubConnState) { c.balancer.UpdateSubConnState(s, state) } //nolint:staticcheck // deprecated, and what such a policy implements
	}
	s, err := newSubchannel(c, addrs, opts)
	if err != nil {
		return nil, err
	}
	c.policy.mu.Lock()
	inUse := c.subchannels != nil
	if inUse {
		c.subchannels[s] = struct{}{}
	}
	c.policy.mu.Unlock()
	if !inUse { // it was closed meanwhile
		s.Shutdown()
		return nil, errReplaced
	}
	return s, nil
}

// RemoveSubConn implements balancer.ClientConn.
func (*childPolicy) RemoveSubConn(sc balancer.SubConn) { sc.Shutdown() }

// UpdateAddresses implements balancer.ClientConn.
func (*childPolicy) UpdateAddresses(sc balancer.SubConn, addrs []resolver.Address) {
	sc.UpdateAddresses(addrs) //nolint:staticcheck // grpclb still calls it
}

// ResolveNow implements balancer.ClientConn. A child that is being replaced is
// ignored.
func (c *childPolicy) ResolveNow(opts resolver.ResolveNowOptions) {
	if c == c.policy.latest() {
		c.ClientConn.ResolveNow(opts)
	}
}
