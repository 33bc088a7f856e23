package scale

import (
	"testing"
	"time"

	"google.golang.org/grpc/connectivity"
)

func TestTheChildHearsThatADialWasGivenUpWhenGRPCSaysThatItHasEnded(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].becomes(connectivity.Connecting)
		waiting := st.begin() // wants a connection
		st.happened()
		time.Sleep(firstConnect + time.Second)
		st.expect("nobody answers", "shutdown 0")
		st.conns[0].becomes(connectivity.Shutdown)
		st.expectInAnyOrder("pick_first hears of the failure, and tries again", "connect 1", "picker TRANSIENT_FAILURE", "picker TRANSIENT_FAILURE")
		if waiting.on() != -2 {
			t.Error("a call waits that is to pick again")
		}
	})
}

func TestOfDialsThatAreGivenUpTogetherTheChildHearsOneFailure(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(1) // so the limit is known
		time.Sleep(time.Minute)
		st.conns[0].becomes(connectivity.Idle)
		st.conns[0].becomes(connectivity.Shutdown)
		st.begin() // makes pick_first connect
		st.conns[1].becomes(connectivity.Connecting)
		for range 3 {
			st.begin()
		}
		if len(st.conns) != 4 {
			t.Fatalf("%d dials, want one for each call", len(st.conns)-1)
		}
		st.conns[2].becomes(connectivity.Connecting)
		st.conns[3].becomes(connectivity.Connecting)
		st.happened()
		time.Sleep(firstConnect + time.Second)
		st.expectInAnyOrder("nobody answers", "shutdown 1", "shutdown 2", "shutdown 3")
		st.conns[1].becomes(connectivity.Shutdown)
		st.expectInAnyOrder("pick_first hears of it", "connect 4", "picker TRANSIENT_FAILURE", "picker TRANSIENT_FAILURE")
		st.conns[2].becomes(connectivity.Shutdown)
		st.conns[3].becomes(connectivity.Shutdown)
		st.expect("and not again")
	})
}

func TestADialThatWasSentAwayAndThenFailedLeavesTheOthersReady(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(1)
		first, second := st.begin(), st.begin() // the second waits, and makes the subchannel grow
		st.conns[1].becomes(connectivity.Connecting)
		st.conns[1].handshakes(1)
		st.conns[1].goesAway()
		st.happened()
		st.conns[1].becomes(connectivity.TransientFailure)
		st.expect("only its SubConn is shut down", "shutdown 1")
		first.end()
		if second.on() != 0 {
			t.Errorf("the call that waited is on %d, want it on 0", second.on())
		}
		st.conns[1].becomes(connectivity.Shutdown)
		st.expect("and that is all")
	})
}
