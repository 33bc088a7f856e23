package scale_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// Whatever becomes of a successor, its predecessor serves until there is a good one,
// and then it makes way.
func TestASuccessorThatIsOfNoUseIsDialledAgainAndItsPredecessorServes(t *testing.T) {
	for _, fault := range []h2test.Fault{
		h2test.CloseAtOnce, h2test.GoAwayAtOnce, h2test.Silent, h2test.HTTP1, h2test.Garbage,
		h2test.ResetsCalls, h2test.AnswersHTTP, h2test.ZeroWindow,
	} {
		t.Run(fault.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r scale.Replacer
				network, s := strictInMemory(t)
				c := network.channel(t, scale.WithReplacer(&r), grpc.WithIdleTimeout(0))
				mustHammer(t, c.stub, 1, 1)
				first := c.observer.Snapshot().Subchannels[0].Connections[0].ID
				s.SetFault(fault)
				r.Replace("rotation", time.Second)
				for range 600 {
					elapse(100 * time.Millisecond)
					mustHammer(t, c.stub, 1, 1)
				}
				sub := c.observer.Snapshot().Subchannels[0]
				if len(sub.Connections) != 1 || sub.Connections[0].ID != first || sub.Replaced != 0 {
					t.Errorf("while no successor is good: %+v", sub)
				}
				if n := network.dials.Load(); n < 4 || n > 12 {
					t.Errorf("%d dials in a minute, want a few", n)
				}
				s.SetFault(h2test.NoFault)
				r.Replace("another rotation", time.Second)
				elapse(time.Minute)
				sub = c.observer.Snapshot().Subchannels[0]
				if len(sub.Connections) != 1 || sub.Connections[0].ID == first || sub.Replaced != 1 {
					t.Errorf("when the server was well again: %+v", sub)
				}
				mustHammer(t, c.stub, 1, 1)
			})
		})
	}
}

func TestARefusalOverHTTPIsToldAsAFailedDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r scale.Replacer
		var d diary
		network, s := strictInMemory(t)
		c := network.channel(t, scale.WithReplacer(&r), scale.WithEvents(d.write), grpc.WithIdleTimeout(0))
		mustHammer(t, c.stub, 1, 1)
		s.SetFault(h2test.AnswersHTTP)
		r.Replace("rotation", 0)
		synctest.Wait()
		last := d.events[len(d.events)-1]
		if last.Kind != scale.EventDialFailed || !strings.Contains(last.Text, "HTTP 400") {
			t.Errorf("the last event is %+v, want a failed dial that tells of HTTP 400", last)
		}
		if sub := c.observer.Snapshot().Subchannels[0]; sub.Opened != 1 || sub.Lost != 0 || sub.LastError != last.Text {
			t.Errorf("the snapshot is %+v", sub)
		}
	})
}

// A server that answers the question badly, or not in time, answered the predecessor
// no better: that is how it is.
func TestASuccessorThatDoesNoWorseThanItsPredecessorSucceedsIt(t *testing.T) {
	hangs := scale.WithProbe(func(ctx context.Context, _ grpc.ClientConnInterface) error {
		<-ctx.Done()
		return ctx.Err()
	})
	for name, tc := range map[string]struct {
		server []h2test.Option
		client []grpc.DialOption
	}{
		"no route for the health service": {server: []h2test.Option{h2test.WithFault(h2test.AnswersHTTP)}},
		"slow":                            {server: []h2test.Option{h2test.WithDelay(3 * time.Second)}},
		"a question that hangs":           {client: []grpc.DialOption{hangs, scale.WithProbeInterval(time.Hour)}},
		"no probes":                       {client: []grpc.DialOption{scale.WithProbeInterval(0)}},
		"one stream":                      {server: []h2test.Option{h2test.WithLimit(1)}},
		"any number of streams":           {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r scale.Replacer
				network, _ := strictInMemory(t, tc.server...)
				c := network.channel(t, append(tc.client, scale.WithReplacer(&r), grpc.WithIdleTimeout(0))...)
				c.Connect()
				elapse(20 * time.Second) // a slow server is known to be slow
				r.Replace("rotation", 0)
				elapse(30 * time.Second)
				if sub := c.observer.Snapshot().Subchannels[0]; sub.Replaced != 1 || len(sub.Connections) != 1 {
					t.Errorf("after 30 s: %+v", sub)
				}
			})
		})
	}
}

func TestAStreamThatHoldsTheOnlyOneDoesNotKeepItsConnectionFromBeingReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r scale.Replacer
		l := newLinked(t, serverConfig{limit: 1}, scale.WithReplacer(&r), scale.WithMaxConnections(1))
		s := l.stream(t)
		r.Replace("rotation", 0)
		elapse(time.Second)
		if err := l.call(); err != nil {
			t.Errorf("a call on the successor: %v", err)
		}
		if err := s.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
			t.Error(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Errorf("the stream on the old connection: %v", err)
		}
	})
}

// When its predecessor is lost, a connection on trial is what there is.
func TestASuccessorOnTrialServesWhenItsPredecessorIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r scale.Replacer
		var mu sync.Mutex // guards conns
		var conns []net.Conn
		network, _ := strictInMemory(t, h2test.WithDelay(500*time.Millisecond))
		dial := func(ctx context.Context, addr string) (net.Conn, error) {
			conn, err := network.dial(ctx, addr)
			mu.Lock()
			defer mu.Unlock()
			conns = append(conns, conn)
			return conn, err
		}
		c := newChannel(t, "passthrough:///memory", grpc.WithContextDialer(dial), scale.WithReplacer(&r))
		mustHammer(t, c.stub, 1, 1)
		r.Replace("rotation", 0)
		elapse(100 * time.Millisecond) // the successor is asked
		if n := c.connections(); n != 1 || network.dials.Load() != 2 {
			t.Fatalf("%d connections in use after %d dials, want 1 and 2", n, network.dials.Load())
		}
		_ = conns[0].Close()
		synctest.Wait()
		start := time.Now()
		mustHammer(t, c.stub, 1, 1)
		if took := time.Since(start); took != 500*time.Millisecond || network.dials.Load() != 2 {
			t.Errorf("a call took %v and %d dials, want it on the successor", took, network.dials.Load())
		}
		elapse(5 * time.Second)
		if sub := c.observer.Snapshot().Subchannels[0]; sub.Replaced != 0 || sub.Lost != 1 || len(sub.Connections) != 1 {
			t.Errorf("in the end: %+v", sub)
		}
	})
}
