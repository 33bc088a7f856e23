package scale

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"
)

func init() { balancer.Register(builder{}) }

// builder makes the policy. It also parses its config, see config.go.
type builder struct{}

// Name implements balancer.Builder.
func (builder) Name() string { return Name }

// Build implements balancer.Builder.
func (builder) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	p := &policy{cc: cc, opts: opts}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.demanded.Store(true) // a call has just woken the channel
	return p
}

// policy is the LB policy of one channel, or of a part of it under another policy.
// It has a child policy choose among subchannels, and manages the connections of
// each. gRPC calls the methods of balancer.Balancer, and tells the states of
// SubConns, one at a time.
type policy struct {
	cc   balancer.ClientConn
	opts balancer.BuildOptions

	ctx    context.Context //nolint:containedctx // the policy's life: ends probes when it is closed
	cancel context.CancelFunc

	// Set by the first UpdateClientConnState, before there is a child.
	channel *channel

	settings    atomic.Pointer[settings]
	picker      atomic.Pointer[picker] // published last
	growingCold atomic.Bool            // growCold is on its way
	demanded    atomic.Bool            // the subchannels know that calls find no connection
	elsewhere   atomic.Bool            // there are several addresses, so a call may find another one
	tasks       tasks

	// mu guards all below. It is held while the picker is handed to gRPC, as
	// gRPC's own policies do it, or two updates could change places; gRPC takes
	// locks of its own there and calls nothing of ours.
	mu      sync.Mutex
	closed  bool
	current *childPolicy // what picks
	pending *childPolicy // what will, once it is of use
	logged  connectivity.State
}

// UpdateClientConnState implements balancer.Balancer.
func (p *policy) UpdateClientConnState(s balancer.ClientConnState) error {
	c, ok := s.BalancerConfig.(*config)
	if !ok {
		return fmt.Errorf("scale: %w: the config of %s is a %T", balancer.ErrBadResolverState, Name, s.BalancerConfig)
	}
	if p.channel == nil {
		if p.channel = c.channel; p.channel == nil {
			p.channel = newChannel(&clientOptions{settings: c.settings})
		}
		p.channel.add(p)
	}
	if old := p.settings.Swap(&c.settings); old != nil && *old != c.settings {
		for _, sub := range p.subchannels() {
			sub.settingsChanged(old, &c.settings)
		}
	}
	p.elsewhere.Store(countAddresses(&s.ResolverState) > 1)
	child := p.latest()
	if child == nil || child.name != c.childBuilder.Name() {
		child = p.switchTo(c.childBuilder)
	}
	s.BalancerConfig = c.childConfig
	return child.balancer.UpdateClientConnState(s)
}

// countAddresses is how many addresses the resolver has found.
func countAddresses(found *resolver.State) (n int) {
	for _, endpoint := range found.Endpoints {
		n += len(endpoint.Addresses)
	}
	return max(n, len(found.Addresses)) // either may be derived from the other
}

// ResolverError implements balancer.Balancer.
func (p *policy) ResolverError(err error) {
	if child := p.latest(); child != nil {
		child.balancer.ResolverError(err)
		return
	}
	p.cc.UpdateState(balancer.State{
		ConnectivityState: connectivity.TransientFailure,
		Picker:            base.NewErrPicker(err),
	})
}

// UpdateSubConnState implements balancer.Balancer. The policy's SubConns have
// listeners of their own.
func (*policy) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}

// ExitIdle implements balancer.Balancer.
func (p *policy) ExitIdle() {
	if child := p.latest(); child != nil {
		child.balancer.ExitIdle()
	}
	p.noteDemand()
}

// Close implements balancer.Balancer. Calls that wait for a stream pick again, and
// find that the channel is closed or has a new policy.
func (p *policy) Close() {
	p.mu.Lock()
	p.closed = true
	current, pending := p.current, p.pending
	p.current, p.pending = nil, nil
	p.mu.Unlock()
	for _, child := range []*childPolicy{current, pending} {
		if child != nil {
			child.close()
		}
	}
	p.cancel()
	p.tasks.wait()
	if p.channel != nil {
		p.channel.events.Flush()
		p.channel.remove(p)
		p.channel.log.rest()
	}
}

// republish hands gRPC a new picker, so that calls that picked a connection
// which is gone pick again.
func (p *policy) republish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.publishLocked()
}

func (p *policy) publishLocked() {
	if p.closed || p.current == nil {
		return
	}
	state := p.current.state
	p.logStateLocked(state.ConnectivityState)
	if state.Picker == nil { // then gRPC has calls wait for the next one
		p.picker.Store(nil)
		p.cc.UpdateState(state)
		return
	}
	next := &picker{policy: p, child: state.Picker}
	p.picker.Store(next)
	state.Picker = next
	p.cc.UpdateState(state)
}

// latest is the child that hears of the resolver, nil before there is one.
func (p *policy) latest() *childPolicy {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending != nil {
		return p.pending
	}
	return p.current
}

// subchannels are those of all children.
func (p *policy) subchannels() (subs []*subchannel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, child := range []*childPolicy{p.current, p.pending} {
		if child != nil {
			for s := range child.subchannels {
				subs = append(subs, s)
			}
		}
	}
	return subs
}

// noteParkedCall is called for every call that finds no READY subchannel. The calls
// that wait for the first connection may need more than one.
func (p *policy) noteParkedCall() {
	p.noteDemand()
	p.scheduleColdGrowth()
}

// scheduleColdGrowth has growCold run. It is called once more when a subchannel has begun
// to connect: calls may have been waiting before the child was told so.
func (p *policy) scheduleColdGrowth() {
	if p.settings.Load().maxConnections > 1 && !p.growingCold.Swap(true) {
		p.tasks.run(p.growCold)
	}
}

// growCold shares the calls that wait among the subchannels that connect.
func (p *policy) growCold() {
	p.growingCold.Store(false) // first: calls that come later are counted by the next look
	latest := p.picker.Load()
	if latest == nil {
		return
	}
	var connecting []*subchannel
	for _, s := range p.subchannels() {
		if s.connecting() {
			connecting = append(connecting, s)
		}
	}
	parked := int(latest.parked.Load())
	for _, s := range connecting {
		s.growCold((parked + len(connecting) - 1) / len(connecting))
	}
}
