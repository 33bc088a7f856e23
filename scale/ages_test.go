package scale_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// restarted ends the connections of a server twice, at about the same age.
func restarted(t *testing.T, s *h2test.Server, c *channel, age time.Duration) {
	t.Helper()
	for i := range 2 {
		mustHammer(t, c.stub, 1, 1)
		elapse(age + time.Duration(i)*age/20)
		s.GoAway(i == 0)
		synctest.Wait()
	}
	mustHammer(t, c.stub, 1, 1)
}

// Two restarts look like an age limit, for as long as it takes a connection to outlive
// it.
func TestAnAgeThatIsNoneIsForgotten(t *testing.T) {
	for name, opts := range map[string][]grpc.DialOption{
		"probes": nil, "no probes": {scale.WithProbeInterval(0)},
	} {
		for _, age := range []time.Duration{2 * time.Second, 20 * time.Second, time.Minute} {
			t.Run(name+", "+age.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					network, s := strictInMemory(t)
					network.dialTime = time.Millisecond
					c := network.channel(t, append(opts, grpc.WithIdleTimeout(0))...)
					restarted(t, s, c, age)
					elapse(5 * age)
					sub := c.observer.Snapshot().Subchannels[0]
					if sub.Replaced < 1 || sub.Replaced > 2 || s.Counts().Open != 1 {
						t.Errorf("%d were replaced, want 1 or 2; %d are open", sub.Replaced, s.Counts().Open)
					}
					elapse(20 * age)
					if n := c.observer.Snapshot().Subchannels[0].Replaced - sub.Replaced; n > 0 {
						t.Errorf("%d more were replaced after that", n)
					}
					s.GoAway(true)
					elapse(10 * time.Millisecond)
					restarted(t, s, c, age) // it may be learned again
					elapse(5 * age)
					if n := c.observer.Snapshot().Subchannels[0].Replaced - sub.Replaced; n < 1 || n > 2 {
						t.Errorf("%d were replaced after two more restarts, want 1 or 2", n)
					}
				})
			})
		}
	}
}

func TestRestartsWithinASecondTellNoAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, s := strictInMemory(t)
		network.dialTime = time.Millisecond
		c := network.channel(t, grpc.WithIdleTimeout(0))
		restarted(t, s, c, time.Second)
		elapse(time.Minute)
		if n := c.observer.Snapshot().Subchannels[0].Replaced; n > 0 {
			t.Errorf("%d were replaced", n)
		}
	})
}

// A rotation that was planned stays planned when the age is forgotten.
func TestAReplacementThatWasAskedForOutlastsAnAgeThatIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r scale.Replacer
		network, s := strictInMemory(t)
		network.dialTime = time.Millisecond
		c := network.channel(t, grpc.WithIdleTimeout(0), scale.WithReplacer(&r))
		restarted(t, s, c, 20*time.Second)
		elapse(27 * time.Second) // the first that was replaced is about to outlive its age
		current := c.observer.Snapshot().Subchannels[0].Connections[0].ID
		r.Replace("rotation", time.Minute)
		elapse(time.Minute)
		if now := c.observer.Snapshot().Subchannels[0].Connections[0].ID; now == current {
			t.Errorf("connection %d is in use a minute after it was to be replaced", now)
		}
	})
}

// A real limit stays known, though it is tried again and again, and no call waits for
// that. When it is lifted that is noticed.
func TestAnAgeLimitStaysKnownUntilItIsLifted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limited, unlimited := newInMemory(), newInMemory()
		startServer(t, serverConfig{listener: limited, options: aging()})
		startServer(t, serverConfig{listener: unlimited})
		var lifted atomic.Bool
		link := grpcpooltest.NewLink(func(ctx context.Context, addr string) (net.Conn, error) {
			if lifted.Load() {
				return unlimited.dial(ctx, addr)
			}
			return limited.dial(ctx, addr)
		})
		c := newChannel(t, "passthrough:///memory", grpc.WithContextDialer(link.Dial), grpc.WithIdleTimeout(0))
		l := &linked{channel: c, link: link}
		l.link.Delay(10 * time.Millisecond)
		l.slowest(t, 25*time.Second) // it is learned
		before := l.subchannel()
		if most := l.slowest(t, 3*time.Minute); most > 20*time.Millisecond {
			t.Errorf("the slowest call took %v, want 20 ms: none should wait for a dial", most)
		}
		sub := l.subchannel()
		if sub.Lost != before.Lost || sub.Replaced < before.Replaced+20 {
			t.Errorf("%d connections were lost and %d replaced, want 0 and at least 20", sub.Lost-before.Lost, sub.Replaced-before.Replaced)
		}
		lifted.Store(true)
		elapse(10 * time.Minute)
		if n := l.subchannel().Replaced - sub.Replaced; n > 20 {
			t.Errorf("%d were replaced after the limit was lifted, want a few", n)
		}
	})
}
