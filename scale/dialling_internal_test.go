package scale

import (
	"slices"
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

// The steps that the child hears of a handshake that is late and then succeeds, or fails,
// are those that every policy knows.
func TestTheChildHearsALegalWayBackFromALateHandshake(t *testing.T) {
	for name, tc := range map[string]struct {
		then func(st *stage)
		want []connectivity.State
	}{
		"it succeeds": {
			func(st *stage) { st.conns[0].allows(1); st.conns[0].becomes(connectivity.Ready) },
			[]connectivity.State{connectivity.Idle, connectivity.Connecting, connectivity.Ready},
		},
		"it fails": { // and the child hears why
			func(st *stage) { st.conns[0].becomes(connectivity.TransientFailure) },
			[]connectivity.State{connectivity.Idle, connectivity.Connecting, connectivity.TransientFailure},
		},
		"it is lost before it is READY": {
			func(st *stage) {
				st.conns[0].becomes(connectivity.Idle)
				st.conns[0].becomes(connectivity.Shutdown)
			},
			[]connectivity.State{connectivity.Idle},
		},
		"the addresses change": {
			func(st *stage) { st.moves(); st.conns[0].becomes(connectivity.Shutdown) },
			[]connectivity.State{connectivity.Idle},
		},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, `{}`, func(st *stage) {
				st.late()
				st.mu.Lock()
				st.told = nil
				st.mu.Unlock()
				tc.then(st)
				st.happened()
				st.mu.Lock()
				defer st.mu.Unlock()
				if got := st.told[:min(len(st.told), len(tc.want))]; !slices.Equal(got, tc.want) { // pick_first may connect after that
					t.Errorf("the child is told %v, want %v", st.told, tc.want)
				}
			})
		})
	}
}

// late has the first connection reach the server, which does not begin HTTP/2.
func (st *stage) late() {
	st.t.Helper()
	st.conns[0].becomes(connectivity.Connecting)
	st.conns[0].reaches()
	st.happened()
	time.Sleep(patientHandshake + time.Millisecond)
	st.expect("a SubConn is made to get to gRPC's goroutine", "shutdown 1")
	st.conns[1].becomes(connectivity.Shutdown)
	if events := st.happened(); len(events) == 0 || st.state != connectivity.TransientFailure {
		st.t.Errorf("the child hears that the handshake is late, and the channel is %v after %q", st.state, events)
	}
}

// A subchannel that is closed while it is about to tell the child something tells it
// SHUTDOWN once, and nothing else.
func TestAnErrandForAClosedSubchannelTellsNothing(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].becomes(connectivity.Connecting)
		st.conns[0].reaches()
		time.Sleep(patientHandshake + time.Millisecond)
		st.happened()
		s := st.subchannel()
		s.Shutdown()
		s.runOnGRPC(s.tellLateLocked)
		st.happened()
		st.mu.Lock()
		st.told = nil
		st.mu.Unlock()
		for _, c := range st.conns {
			c.becomes(connectivity.Shutdown)
		}
		if want := []connectivity.State{connectivity.Shutdown}; !slices.Equal(st.told, want) {
			t.Errorf("the child is told %v, want %v", st.told, want)
		}
	})
}

// A GOAWAY that is seen before gRPC reports that the SubConn connects, while dials are held
// back: the child hears of the end.
func TestTheChildHearsOfAConnectionThatWasSentAwayBeforeItConnected(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		for _, c := range []int{0, 1} { // after the second the next dial is held back
			st.conns[c].handshakes(5)
			st.conns[c].goesAway()
		}
		time.Sleep(time.Second)
		for _, c := range []int{0, 1} {
			st.conns[c].becomes(connectivity.Connecting)
			st.conns[c].becomes(connectivity.Idle)
			st.conns[c].becomes(connectivity.Shutdown)
		}
		st.mu.Lock()
		defer st.mu.Unlock()
		if want := []connectivity.State{connectivity.Connecting, connectivity.Idle}; len(st.told) < 2 || !slices.Equal(st.told[:2], want) {
			t.Errorf("the child is told %v, want %v", st.told, want)
		}
	})
}
