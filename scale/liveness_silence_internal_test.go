package scale

import (
	"context"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// What becomes of the successor of a silent connection that answers after all.

// falls has connection 0 fall silent, and returns a call on it whose answer is a sign of
// life.
func (st *stage) falls(t *testing.T) (sign *call) {
	t.Helper()
	st.policy.channel.ask = func(ctx context.Context, cc grpc.ClientConnInterface) error {
		return cc.(*askedConn).ClientConnInterface.Invoke(ctx, "", nil, nil)
	}
	st.conns[0].connects(100)
	st.conns[0].deaf.Store(true)
	time.Sleep(time.Second) // the inquiry has begun
	sign = st.begin()
	time.Sleep(time.Second)
	st.happened()
	if len(st.conns) != 2 || sign.on() != 0 {
		t.Fatalf("%d connections and a call on %d, want a successor and a call on 0", len(st.conns), sign.on())
	}
	return sign
}

func TestTheSuccessorOfASilentConnectionIsDroppedWhenItAnswers(t *testing.T) {
	for name, comesTo := range map[string]func(*stage){
		"while it is dialled": func(*stage) {},
		"while it is on trial": func(st *stage) {
			st.conns[1].deaf.Store(true)
			st.conns[1].connects(100)
		},
		"when it has answered": func(st *stage) { st.conns[1].connects(100) },
	} {
		t.Run(name, func(t *testing.T) {
			play(t, `{}`, func(st *stage) {
				sign := st.falls(t)
				comesTo(st)
				waits := st.begin()
				st.expect("a call has begun")
				if n := waits.on(); n != -1 {
					t.Errorf("a call is on %d, want to wait", n)
				}
				st.conns[0].deaf.Store(false)
				sign.end()
				time.Sleep(130 * time.Millisecond) // until the next look
				st.expect("the connection has answered", "shutdown 1")
				if n := waits.on(); n != 0 {
					t.Errorf("the call that waited is on %d, want 0", n)
				}
				time.Sleep(time.Minute)
				if now := st.stats(); now.ejected+now.replaced+now.lost+now.failed != 0 || len(st.conns) != 2 {
					t.Errorf("after a minute: %+v, %d connections", now, len(st.conns))
				}
			})
		})
	}
}

func TestASuccessorThatIsBeingMadeIsDroppedWhenTheSilentConnectionAnswers(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(100)
		st.conns[0].deaf.Store(true)
		time.Sleep(time.Second)
		sign, slow := st.begin(), make(chan struct{})
		st.mu.Lock()
		st.slow = slow
		st.mu.Unlock()
		time.Sleep(time.Second)
		st.conns[0].deaf.Store(false)
		sign.end()
		time.Sleep(130 * time.Millisecond)
		st.happened()
		close(slow)
		st.expect("there is the SubConn", "shutdown 1")
	})
}

// A connection that was to be replaced in any case is, by the successor that is there.
func TestASilentConnectionWithAnOldIdentityIsReplacedWhenItAnswers(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		sign := st.falls(t)
		st.subchannel().replaceAll("new certificate", 0)
		st.conns[1].connects(100)
		st.expect("the successor has answered")
		st.conns[0].deaf.Store(false)
		sign.end()
		time.Sleep(130 * time.Millisecond)
		st.expectInAnyOrder("the connection has answered", "connect 2", "picker READY", "shutdown 0") // the successor too was made before the certificate
		if now := st.stats(); now.ejected != 0 || now.replaced != 1 {
			t.Errorf("%+v, want one replaced", now)
		}
	})
}

func TestASilentConnectionIsEjectedWhenItsSuccessorHasAnsweredInItsPlace(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.falls(t)
		waits := st.begin()
		st.conns[1].connects(100)
		st.expect("the successor has answered")
		time.Sleep(250 * time.Millisecond)
		st.happened()
		if n := waits.on(); n != 1 {
			t.Errorf("the call that waited is on %d, want 1", n)
		}
		if now := st.stats(); now.ejected != 1 || now.opened != 2 {
			t.Errorf("%+v, want one ejected and two opened", now)
		}
	})
}

// If its successor is lost, or as silent as it, another follows after a pause, and it is
// ejected when its time is over.
func TestASilentConnectionGetsOneSuccessorAfterTheOther(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.falls(t)
		for range 50 {
			st.begin()
		}
		st.conns[1].fails()
		st.happened()
		time.Sleep(2 * time.Second)
		events := st.happened()
		if !slices.Contains(events, "connect 2") || slices.Contains(events, "connect 3") {
			t.Errorf("after the first has failed: %q", events)
		}
		if now := st.stats(); now.ejected != 1 {
			t.Errorf("%+v, want one ejected", now)
		}
	})
}
