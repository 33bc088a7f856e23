package scale

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"

	"github.com/davidwartell/go-grpcpool/internal/reason"
)

// explain adds to the error of a dial why it failed and what to do about it.
func (s *subchannel) explain(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("scale: connecting to %w", reason.Explain(s.addr(), err))
}

// LastErrors returns, for each subchannel that has one, the error of the last dial that
// failed or the last connection that was lost. Unlike the status of an RPC, which has
// only their text, these errors can be examined with errors.Is and errors.As.
func (o *Observer) LastErrors() (errs []error) {
	ch := o.channel.Load()
	if ch == nil {
		return nil
	}
	for _, p := range ch.livePolicies() {
		for _, s := range p.subchannels() {
			s.mu.Lock()
			if s.lastErr != nil {
				errs = append(errs, s.lastErr)
			}
			s.mu.Unlock()
		}
	}
	return errs
}

// PickError returns the error with which a call of the given full method name, such as
// "/shop.Orders/Get", would fail now for want of a connection: that of the LB policy's
// picker while the channel is in TRANSIENT_FAILURE, or that of the resolver before there
// is a policy. It is nil if the channel is in another state or gives no reason. An RPC
// would give the same error, but only after the program's interceptors, its retry policy
// and wait-for-ready. To ask is demand, as such an RPC is: the channel dials for it at its own
// pace. A nil ctx counts as context.Background().
func (o *Observer) PickError(ctx context.Context, method string) error { //nolint:contextcheck // a nil ctx is none to inherit from
	ch := o.channel.Load()
	if ch == nil {
		return nil
	}
	switch policies := ch.livePolicies(); len(policies) {
	case 0:
		return ch.resolverError()
	case 1:
		if ctx == nil {
			ctx = context.Background()
		}
		return policies[0].pickError(balancer.PickInfo{Ctx: ctx, FullMethodName: method})
	default: // they are children of another policy, whose picker decides
		return nil
	}
}

func (p *policy) pickError(info balancer.PickInfo) error {
	err := p.stateError(info)
	if err != nil {
		p.noteDemand()
	}
	return err
}

// stateError is pickError without demand.
func (p *policy) stateError(info balancer.PickInfo) error {
	p.mu.Lock()
	var state balancer.State
	if p.current != nil {
		state = p.current.state
	}
	p.mu.Unlock()
	if state.ConnectivityState != connectivity.TransientFailure || state.Picker == nil {
		return nil
	}
	result, err := state.Picker.Pick(info)
	if result.Done != nil {
		result.Done(balancer.DoneInfo{})
	}
	if errors.Is(err, balancer.ErrNoSubConnAvailable) {
		return nil
	}
	return err
}

// ReportError implements resolver.ClientConn.
func (cc *resolverClientConn) ReportError(err error) {
	cc.channel.noteResolverError(err)
	cc.ClientConn.ReportError(err)
	cc.channel.log.addUnresolved(err)
}

// UpdateState implements resolver.ClientConn.
func (cc *resolverClientConn) UpdateState(state resolver.State) error {
	cc.channel.noteResolverError(nil)
	return cc.ClientConn.UpdateState(state)
}

func (ch *channel) noteResolverError(err error) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.resolverErr = err
}

func (ch *channel) resolverError() error {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.resolverErr
}
