package scale

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"
)

// What happens to a connection while one of its plans is being carried out.

// neverReturns is a question of WithProbe's that ignores its context, until the stage is
// over.
func neverReturns(st *stage) (stop func()) {
	over := make(chan struct{})
	st.policy.channel.ask = func(context.Context, grpc.ClientConnInterface) error {
		<-over
		return errors.New("too late")
	}
	return func() { close(over) }
}

// succeeding has the successor of the first connection dialled.
func (st *stage) succeeding(t *testing.T) {
	t.Helper()
	time.Sleep(time.Millisecond)
	st.happened()
	if len(st.conns) != 2 {
		t.Fatalf("%d connections, want one and its successor", len(st.conns))
	}
}

func (st *stage) stats() (now counters) {
	s := st.subchannel()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

func TestAProbeThatIgnoresItsContextDoesNotHideADeadConnection(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		defer neverReturns(st)()
		c := st.conns[0]
		c.deaf.Store(true)
		c.connects(100)
		time.Sleep(4 * time.Second)
		if now := st.stats(); now.ejected != 1 {
			t.Errorf("%d connections ejected, want 1", now.ejected)
		}
	})
}

func TestAQuestionThatIgnoresItsContextDoesNotKeepAnOldIdentity(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(100)
		defer neverReturns(st)()
		st.subchannel().replaceAll("new certificate", 0)
		st.succeeding(t)
		st.conns[1].connects(100)
		time.Sleep(time.Minute)
		if now := st.stats(); now.replaced != 1 {
			t.Errorf("%d connections replaced, want 1", now.replaced)
		}
	})
}

// The successor of a connection that does not answer is as silent as it, and so nothing
// comes of it. A new certificate is another matter.
func TestAReplacementThatIsAskedForOutlastsOneForWantOfAnAnswer(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(100)
		old := st.connection(0)
		old.replaceStuck()
		st.succeeding(t)
		st.subchannel().replaceAll("new certificate", 0)
		c := st.conns[1]
		c.deaf.Store(true)
		c.connects(100)
		time.Sleep(20 * time.Second)
		st.happened()
		if len(st.conns) < 3 {
			t.Error("no further successor was dialled")
		}
	})
}

func TestAConnectionThatAnswersAgainIsNotReplacedForWantOfAnAnswer(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(100)
		st.connection(0).replaceStuck()
		st.succeeding(t)
		st.conns[1].becomes(connectivity.Connecting)
		st.conns[1].listener(balancer.SubConnState{ConnectivityState: connectivity.TransientFailure, ConnectionError: errors.New("refused")})
		time.Sleep(time.Minute) // in which it answers every probe
		st.happened()
		if n := len(st.conns); n != 2 {
			t.Errorf("%d connections were dialled, want 2", n)
		}
	})
}

// A SubConn whose dial has failed may be dialled again, and what then ends is another
// connection.
func TestAConnectionIsJudgedByItsLastDial(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(1)
		time.Sleep(2 * time.Second)
		st.begin()
		st.begin() // and the subchannel grows
		c := st.conns[1]
		c.becomes(connectivity.Connecting)
		c.handshakes(1)
		c.hangUp()
		c.listener(balancer.SubConnState{ConnectivityState: connectivity.TransientFailure, ConnectionError: errors.New("EOF while the dial was under way")})
		st.happened()
		time.Sleep(time.Second)
		c.becomes(connectivity.Idle)
		c.connects(1)
		time.Sleep(time.Minute)
		c.goesAway()
		st.happened()
		s := st.subchannel()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.shortLived != 0 || !strings.Contains(s.lastErr.Error(), "GOAWAY") {
			t.Errorf("after a minute: short-lived %d, %v", s.shortLived, s.lastErr)
		}
	})
}

// The addresses change while a successor is on trial, which is at one that is gone.
func TestASuccessorAtAnAddressThatIsGoneIsNotPutToUse(t *testing.T) {
	for range 20 { // in the order of a map
		play(t, `{}`, func(st *stage) {
			st.conns[0].connects(100)
			defer neverReturns(st)()
			s := st.subchannel()
			s.replaceAll("new certificate", 0)
			st.succeeding(t)
			st.conns[1].connects(100)
			s.UpdateAddresses([]resolver.Address{{Addr: "b"}})
			st.happened()
			for _, c := range *s.ready.Load() {
				t.Errorf("calls go to %s", c.to.Load().Addr)
			}
		})
	}
}

// What a restart ends together is one failure, however many connections there were.
func TestConnectionsThatEndTogetherCountOnce(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(1)
		for range 3 {
			st.begin() // the second and the third make the subchannel grow
		}
		for n := 1; n < len(st.conns); n++ {
			st.conns[n].connects(1)
		}
		if len(st.conns) < 3 {
			t.Fatalf("%d connections, want 3", len(st.conns))
		}
		time.Sleep(100 * time.Millisecond)
		for _, c := range st.conns {
			c.becomes(connectivity.Idle)
		}
		st.happened()
		s := st.subchannel()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.shortLived != 1 || !s.heldUntil.IsZero() {
			t.Errorf("%d failures in a row, held until %v", s.shortLived, s.heldUntil)
		}
	})
}
