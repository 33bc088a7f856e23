package scale

import (
	"errors"
	"sync/atomic"

	"google.golang.org/grpc/balancer"
)

// picker has the child's picker choose a subchannel, and takes a stream on one of
// its connections. It may be used long after the next one has been published: it
// holds no list of connections, the subchannel does.
type picker struct {
	policy *policy
	child  balancer.Picker

	parked atomic.Int64 // calls for which the child's picker had no subchannel
}

// Pick implements balancer.Picker. It allocates nothing while a stream is free
// and the child's picker allocates nothing.
func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	result, err := p.child.Pick(info)
	if err != nil {
		if errors.Is(err, balancer.ErrNoSubConnAvailable) {
			p.parked.Add(1)
			p.policy.nudge()
		} else {
			p.policy.noteDemand()
		}
		return result, err
	}
	s, ok := result.SubConn.(*subchannel)
	if !ok {
		return result, nil // not made through this policy
	}
	c, err := s.acquire(info.Ctx)
	if c == nil {
		if result.Done != nil {
			result.Done(balancer.DoneInfo{Err: err})
		}
		if err == nil {
			err = balancer.ErrNoSubConnAvailable
		}
		return balancer.PickResult{}, err
	}
	result.SubConn = c.sc
	result.Done = c.doneAfter(result.Done)
	return result, nil
}

// doneAfter is the Done of a call on c whose child policy wants to be told first.
func (c *connection) doneAfter(child func(balancer.DoneInfo)) func(balancer.DoneInfo) {
	if child == nil {
		return c.window.Load().done
	}
	done := c.window.Load().done
	return func(info balancer.DoneInfo) {
		child(info)
		done(info)
	}
}
