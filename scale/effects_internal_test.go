package scale

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/connectivity"
)

// In which order a change is carried out, and what becomes of it while the policy closes.

func TestAReadyExitPublishesAPickerBeforeTheSubConnIsShutDown(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(1)
		first := st.begin()
		second := st.begin() // waits, and makes the subchannel grow
		st.conns[1].connects(1)
		if first.on() != 0 || second.on() != 1 {
			t.Fatalf("the calls are on %d and %d", first.on(), second.on())
		}
		time.Sleep(time.Minute)
		st.happened()
		st.conns[1].becomes(connectivity.Idle)
		st.expect("a younger connection is lost", "picker READY", "shutdown 1")
		st.conns[1].becomes(connectivity.Shutdown)
		st.expect("its SubConn is gone")
		st.conns[0].becomes(connectivity.Idle)
		st.expect("the last connection is lost", "picker IDLE", "picker IDLE", "shutdown 0")
	})
}

// A policy under another one that does not keep a list of its SubConns must not leave any.
func TestASubConnThatIsMadeWhileThePolicyClosesIsShutDown(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(1)
		slow := make(chan struct{})
		st.mu.Lock()
		st.slow = slow
		st.mu.Unlock()
		running, waiting := st.begin(), st.begin() // the second makes the subchannel grow
		st.happened()
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			st.policy.Close()
		}()
		st.expect("the policy closes while it makes a SubConn", "shutdown 0")
		close(slow)
		<-closed
		st.expect("there is the SubConn", "shutdown 1")
		running.end()
		waiting.cancel()
	})
}

// The socket may be of the program's own dialer, such as one to a proxy behind TLS, which
// tells the peer before it closes.
func TestASuccessorIsDialledWhileTheSocketOfAnEjectedConnectionIsStillBeingClosed(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].slowEnd = make(chan struct{})
		st.conns[0].connects(1)
		st.happened()
		c, ejected := st.connection(0), make(chan struct{})
		go func() {
			defer close(ejected)
			c.sub.update(func(e *effects) { c.sub.ejectLocked(c, errors.New("no answer"), e) })
		}()
		st.expect("an ejection", "connect 1")
		close(st.conns[0].slowEnd)
		<-ejected
	})
}

func TestTheEventOfGrowthCountsItsCalls(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(1)
		st.begin()
		for _, want := range []string{"1 more for 1 call", "1 more for 2 calls"} {
			st.begin() // waits, and makes the subchannel grow
			latest := st.policy.channel.events.Latest()
			if last := latest[len(latest)-1]; last.Kind != EventGrew || last.Text != want {
				t.Errorf("the latest event is %s %q, want %s %q", last.Kind, last.Text, EventGrew, want)
			}
		}
	})
}
