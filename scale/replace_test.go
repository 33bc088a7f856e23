package scale_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// aging makes a server end connections at an age of 10 s, give or take a tenth.
func aging() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.KeepaliveParams(keepalive.ServerParameters{
		MaxConnectionAge: 10 * time.Second, MaxConnectionAgeGrace: 5 * time.Second,
	})}
}

// slowest makes calls for d, one every 5 ms, and returns how long the slowest took.
func (l *linked) slowest(t *testing.T, d time.Duration) (most time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		start := time.Now()
		if err := l.call(); err != nil {
			t.Fatalf("a call failed: %v", err)
		}
		most = max(most, time.Since(start))
		time.Sleep(5 * time.Millisecond) // the caller's pace, in virtual time
	}
	return most
}

func TestTheAgeThatAServerAllowsIsLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // row 14
		l := newLinked(t, serverConfig{options: aging()})
		l.link.Delay(10 * time.Millisecond) // a call takes 20 ms, a dial and its call more
		if most := l.slowest(t, 25*time.Second); most <= 20*time.Millisecond {
			t.Errorf("while the age was not known the slowest call took %v: did the server end no connection?", most)
		}
		before := l.subchannel()
		if most := l.slowest(t, 2*time.Minute); most > 20*time.Millisecond {
			t.Errorf("the slowest call took %v, want 20 ms: none should wait for a dial", most)
		}
		sub := l.subchannel()
		if sub.Lost != before.Lost || sub.Replaced < before.Replaced+12 {
			t.Errorf("%d connections were lost and %d replaced, want 0 and at least 12", sub.Lost-before.Lost, sub.Replaced-before.Replaced)
		}
	})
}

func TestConnectionsAreReplacedByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinked(t, serverConfig{}, scale.WithMaxConnectionAge(10*time.Second))
		l.link.Delay(10 * time.Millisecond)
		if most := l.slowest(t, time.Minute); most > 60*time.Millisecond { // the first, with its dial
			t.Errorf("the slowest call took %v", most)
		}
		if sub := l.subchannel(); sub.Replaced < 5 || sub.Replaced > 6 || len(sub.Connections) != 1 {
			t.Errorf("after a minute: %+v", sub)
		}
	})
}

func TestAnAgeLimitCanBeLeftToTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinked(t, serverConfig{options: aging()}, scale.WithMaxConnectionAge(-1))
		l.slowest(t, time.Minute)
		if sub := l.subchannel(); sub.Replaced != 0 || sub.Lost < 5 {
			t.Errorf("after a minute: %+v", sub)
		}
	})
}

func TestARestartOfTheServerTellsNoAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, s := strictInMemory(t, h2test.WithLimit(2))
		c := network.channel(t, grpc.WithIdleTimeout(0))
		mustHammer(t, c.stub, 8, 2) // several connections of one age
		elapse(20 * time.Second)
		s.GoAway(true)
		synctest.Wait() // a call that meets the GOAWAYs of two connections fails, see failure_test.go
		mustHammer(t, c.stub, 1, 1)
		elapse(5 * time.Minute)
		if sub := c.observer.Snapshot().Subchannels[0]; sub.Replaced != 0 {
			t.Errorf("%d connections were replaced", sub.Replaced)
		}
	})
}

func TestAHeldGoAwayLetsNoCallWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinked(t, serverConfig{options: aging()}, scale.WithHoldGoAway(), scale.WithMaxConnectionAge(-1))
		if err := l.call(); err != nil {
			t.Fatal(err)
		}
		l.link.Delay(10 * time.Millisecond)
		if most := l.slowest(t, time.Minute); most > 20*time.Millisecond {
			t.Errorf("the slowest call took %v, want 20 ms: none should wait for a dial", most)
		}
		if sub := l.subchannel(); sub.Replaced < 5 || sub.Lost != 0 {
			t.Errorf("after a minute: %+v", sub)
		}
	})
}

func TestAHeldGoAwayIsNotTheLastWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newInMemory()
		s := startServer(t, serverConfig{listener: network, options: aging()})
		c := network.channel(t, scale.WithHoldGoAway(), grpc.WithIdleTimeout(0))
		mustHammer(t, c.stub, 1, 1)
		network.refuse.Store(true)
		elapse(12 * time.Second) // the first GOAWAY has come, and no successor can be had
		mustHammer(t, c.stub, 1, 1)
		elapse(10 * time.Second)
		if n := c.connections(); n != 0 || s.calls.Load() != 2 {
			t.Errorf("%d connections and %d calls after the second GOAWAY, want 0 and 2", n, s.calls.Load())
		}
	})
}

func TestAReplacerReplacesEveryConnectionInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r scale.Replacer
		var replaced atomic.Int64
		l := newLinked(t, serverConfig{}, scale.WithReplacer(&r), scale.WithMaxStreams(2), scale.WithEvents(func(e scale.Event) {
			if e.Kind == scale.EventReplaced && e.Text == "rotation" {
				replaced.Add(1)
			}
		}))
		s := l.stream(t)
		for range 9 {
			l.stream(t)
		}
		old := l.subchannel().Connections
		r.Replace("rotation", 30*time.Second)
		stop := l.calls(3, 5*time.Millisecond)
		elapse(30 * time.Second)
		stop()
		sub := l.subchannel()
		for _, c := range sub.Connections {
			if c.ID <= old[len(old)-1].ID {
				t.Errorf("connection %d is older than the call of Replace", c.ID)
			}
		}
		if sub.Replaced != 5 || replaced.Load() != 5 || sub.Lost != 0 {
			t.Errorf("%d were replaced, %d events told of it, %d were lost, want 5, 5, 0", sub.Replaced, replaced.Load(), sub.Lost)
		}
		if err := s.CloseSend(); err != nil {
			t.Error(err)
		}
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("a stream on an old connection ended with %v", err)
		}
	})
}

func TestAConnectionStaysWhileItsSuccessorCannotBeHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r scale.Replacer
		network, _ := strictInMemory(t)
		c := network.channel(t, scale.WithReplacer(&r), grpc.WithIdleTimeout(0))
		mustHammer(t, c.stub, 1, 1)
		network.refuse.Store(true)
		r.Replace("rotation", time.Second)
		elapse(time.Minute)
		mustHammer(t, c.stub, 1, 1)
		dials := network.dials.Load()
		if dials < 4 || dials > 12 {
			t.Errorf("%d dials in a minute, want a few", dials)
		}
		network.refuse.Store(false)
		elapse(time.Minute)
		if sub := c.observer.Snapshot().Subchannels[0]; sub.Replaced != 1 || len(sub.Connections) != 1 {
			t.Errorf("after the server was back: %+v", sub)
		}
	})
}

func TestAReplacerKnowsNothingOfAClosedChannel(t *testing.T) {
	var r scale.Replacer
	c := newChannel(t, startServer(t, serverConfig{}).addr, scale.WithReplacer(&r))
	mustHammer(t, c.stub, 1, 1)
	_ = c.Close()
	r.Replace("rotation", 0)
}

func TestAServerThatDoesNotBeginHTTP2IsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // row 10
		network, s := strictInMemory(t, h2test.WithFault(h2test.Silent))
		c := network.channel(t, grpc.WithIdleTimeout(0))
		start := time.Now()
		errs := hammer(context.Background(), c.stub, 1, 1)
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("the call ended after %v, want 3 s at most", took)
		}
		if len(errs) != 1 || !containsAll(errs[0].Error(), "did not begin HTTP/2 (no SETTINGS)") {
			t.Errorf("the call ended with %v", errs)
		}
		elapse(10 * time.Minute) // nobody wants the connection
		s.SetFault(h2test.NoFault)
		start = time.Now()
		for len(hammer(context.Background(), c.stub, 1, 1)) > 0 {
			time.Sleep(10 * time.Millisecond) // the caller's pace, in virtual time
		}
		if took := time.Since(start); took > 25*time.Second {
			t.Errorf("the first good call came %v after the server was well again", took)
		}
	})
}
