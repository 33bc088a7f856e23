package shared

import (
	"context"
	"errors"

	"google.golang.org/grpc/connectivity"

	"github.com/davidwartell/go-grpcpool"
)

// What programs ask a *grpc.ClientConn for, so that a pool can take its place.

// switching ends when another channel takes the place of the current one.
type switching struct {
	ctx context.Context //nolint:containedctx // for context.AfterFunc
	end context.CancelFunc
}

// setCurrentLocked makes c the current channel, or none if c is nil.
func (p *Pool) setCurrentLocked(c *channel) {
	p.current.Store(c)
	if c != nil {
		p.canonical = c.conn.CanonicalTarget()
	}
	if p.switched != nil {
		p.switched.end()
		p.switched = nil
	}
}

// watchLocked returns what ends with the next setCurrentLocked.
func (p *Pool) watchLocked() *switching {
	if p.switched == nil {
		p.switched = new(switching)
		p.switched.ctx, p.switched.end = context.WithCancel(context.Background())
	}
	return p.switched
}

// GetState returns the state of the channel, IDLE if there is none, and SHUTDOWN after
// Close; see grpc.ClientConn.GetState.
func (p *Pool) GetState() connectivity.State {
	p.mu.Lock()
	c, closing := p.current.Load(), p.closing
	p.mu.Unlock()
	return connectivityOf(c, closing)
}

func connectivityOf(c *channel, closing bool) connectivity.State {
	switch {
	case closing:
		return connectivity.Shutdown
	case c == nil:
		return connectivity.Idle
	default:
		return c.conn.GetState()
	}
}

// WaitForStateChange waits until the state is another than source, or until ctx ends; then
// it returns false. See grpc.ClientConn.WaitForStateChange.
func (p *Pool) WaitForStateChange(ctx context.Context, source connectivity.State) bool {
	for {
		p.mu.Lock()
		c, closing := p.current.Load(), p.closing
		switched := p.watchLocked()
		p.mu.Unlock()
		if connectivityOf(c, closing) != source {
			return true
		}
		one, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(switched.ctx, cancel) //nolint:contextcheck // it is the pool's
		if c == nil {
			<-one.Done()
		} else {
			c.conn.WaitForStateChange(one, source)
		}
		stop()
		cancel()
		if ctx.Err() != nil {
			return false
		}
	}
}

// Connect connects the channel if it is idle, and makes one if there is none. It does not
// wait for that. See grpc.ClientConn.Connect.
func (p *Pool) Connect() {
	if p.channels == nil {
		if c := p.current.Load(); c != nil {
			c.conn.Connect()
		} else {
			p.renewInBackground()
		}
		return
	}
	c, _, err := p.leaseUntested(context.Background())
	if err != nil {
		return // the next RPC or Get tells it
	}
	defer c.release()
	c.conn.Connect()
}

// ResetConnectBackoff ends the pauses before the next dials of the channel and of the pool;
// see grpc.ClientConn.ResetConnectBackoff.
func (p *Pool) ResetConnectBackoff() {
	if c := p.current.Load(); c != nil {
		c.conn.ResetConnectBackoff()
		if c.inspector != nil {
			c.inspector.RetryNow()
		}
	}
	p.endPauses()
}

// Target returns the target as the factory has it, or as the latest channel has it if the
// factory has no method Target() string.
func (p *Pool) Target() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.target
}

// CanonicalTarget returns the target as gRPC parsed it; see grpc.ClientConn.CanonicalTarget.
// Before there is a channel it makes one, which is not connected. If it cannot, as the factory
// is not a grpcpool.ChannelFactory, it returns Target.
func (p *Pool) CanonicalTarget() string {
	for ask := true; ; ask = false {
		p.mu.Lock()
		canonical, target := p.canonical, p.target
		p.mu.Unlock()
		switch {
		case canonical != "":
			return canonical
		case p.channels == nil || !ask:
			return target
		}
		if _, err := p.makeChannel(context.Background()); errors.Is(err, grpcpool.ErrClosed) {
			if c, err := p.leaseClosed(); err == nil {
				defer c.release()
				return c.conn.CanonicalTarget()
			}
		}
	}
}
