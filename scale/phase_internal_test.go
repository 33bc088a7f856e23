package scale

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"
)

// Every test of this package, also the black-box ones, runs with the table of moves
// enforced.
func init() {
	moveHook = func(c *connection, to phase, allowed bool) {
		if !allowed {
			panic(fmt.Sprintf("scale: connection %d moves from %v to %v, which the table of phases does not have", c.id, c.phase, to))
		}
		if st, ok := c.sub.policy.cc.(*stage); ok {
			st.moved[move{c.phase, to}]++
		}
	}
}

// move is a row of the table of phases.
type move struct{ from, to phase }

func (m move) String() string { return fmt.Sprintf("from %v to %v", m.from, m.to) }

// What leads to each move, beginning with a subchannel that dials its first connection.
var driven = map[move]func(st *stage){
	{phaseIdle, phaseDialling}: func(*stage) {},
	{phaseIdle, phaseRetired}: func(st *stage) {
		st.conns[0].connects(1)
		running, waiting := st.begin(), st.begin() // the second makes the subchannel grow
		st.conns[1].becomes(connectivity.Connecting)
		st.conns[1].becomes(connectivity.TransientFailure)
		running.end()
		waiting.end()
		st.conns[1].becomes(connectivity.Idle)
	},
	{phaseDialling, phaseBackoff}: func(st *stage) { st.conns[0].fails() },
	{phaseDialling, phaseTrial}:   func(st *stage) { st.tries() },
	{phaseDialling, phaseReady}:   func(st *stage) { st.conns[0].connects(1) },
	{phaseDialling, phaseDraining}: func(st *stage) {
		st.conns[0].becomes(connectivity.Connecting)
		st.conns[0].handshakes(1)
		st.conns[0].goesAway()
	},
	{phaseDialling, phaseRetired}: func(st *stage) { st.moves() },
	{phaseDialling, phaseHeld}: func(st *stage) {
		for n := range 2 {
			st.conns[n].becomes(connectivity.Connecting)
			st.conns[n].becomes(connectivity.Idle)
			st.begin() // has pick_first connect again
		}
	},
	{phaseBackoff, phaseIdle}: func(st *stage) {
		st.conns[0].fails()
		st.conns[0].becomes(connectivity.Idle)
	},
	{phaseBackoff, phaseRetired}: func(st *stage) {
		st.conns[0].fails()
		st.subchannel().retryNow()
	},
	{phaseBackoff, phaseHeld}: func(st *stage) {
		for range 2 { // a server that ends what it has accepted
			st.conns[0].becomes(connectivity.Connecting)
			st.conns[0].handshakes(1)
			st.conns[0].hangUp()
			st.conns[0].becomes(connectivity.TransientFailure)
			st.conns[0].becomes(connectivity.Idle)
		}
	},
	{phaseTrial, phaseReady}: func(st *stage) {
		st.tries()
		st.conns[0].becomes(connectivity.Idle)
	},
	{phaseTrial, phaseDraining}: func(st *stage) {
		st.tries()
		st.conns[1].goesAway()
	},
	{phaseTrial, phaseRetired}: func(st *stage) {
		st.tries()
		st.moves()
	},
	{phaseReady, phaseObserved}: func(st *stage) { st.observes() },
	{phaseReady, phaseDraining}: func(st *stage) {
		st.conns[0].connects(1)
		st.conns[0].goesAway()
	},
	{phaseReady, phaseRetired}: func(st *stage) {
		st.conns[0].connects(1)
		st.conns[0].becomes(connectivity.Idle)
	},
	{phaseReady, phaseHeld}: func(st *stage) { st.holds() },
	{phaseObserved, phaseRetired}: func(st *stage) {
		st.observes()
		st.conns[0].goesAway()
	},
	{phaseDraining, phaseRetired}: func(st *stage) {
		st.conns[0].connects(1)
		st.conns[0].goesAway()
		st.conns[0].becomes(connectivity.Idle)
	},
	{phaseDraining, phaseHeld}: func(st *stage) {
		for n := range 2 {
			st.conns[n].becomes(connectivity.Connecting)
			st.conns[n].handshakes(1)
			st.conns[n].goesAway()
		}
		st.conns[0].becomes(connectivity.Idle)
	},
	{phaseHeld, phaseRetired}: func(st *stage) {
		st.holds()
		st.moves()
	},
}

func (c *scripted) fails() {
	c.becomes(connectivity.Connecting)
	c.becomes(connectivity.TransientFailure)
}

// moves gives the subchannel another address.
func (st *stage) moves() { st.subchannel().UpdateAddresses([]resolver.Address{{Addr: "b"}}) }

// holds loses two connections one after the other, just after they were made.
func (st *stage) holds() {
	for n := range 2 {
		st.conns[n].connects(1)
		st.conns[n].becomes(connectivity.Idle)
		st.begin() // has pick_first connect again
	}
}

// tries has the successor of the first connection put on a trial that does not end.
func (st *stage) tries() {
	st.t.Helper()
	st.conns[0].connects(100)
	st.t.Cleanup(neverReturns(st))
	st.subchannel().replaceAll("new certificate", 0)
	st.succeeding(st.t)
	st.conns[1].connects(100)
}

// observes has the first connection replaced by its age, and kept.
func (st *stage) observes() {
	st.t.Helper()
	const age = 10 * time.Second
	st.policy.channel.memory.note("a", func(l *learned) { l.lifetime.age = age })
	st.conns[0].connects(100)
	time.Sleep(scaled(age, ageShare+ageSpread))
	st.succeeding(st.t)
	st.conns[1].connects(100)
}

func TestEveryMoveOfTheTableHappens(t *testing.T) {
	for from, tos := range moves {
		for _, to := range tos {
			m := move{phase(from), to}
			script := driven[m]
			if script == nil {
				t.Errorf("nothing leads %v", m)
				continue
			}
			t.Run(m.String(), func(t *testing.T) {
				play(t, `{}`, func(st *stage) {
					script(st)
					st.happened()
					s := st.subchannel()
					s.mu.Lock()
					defer s.mu.Unlock()
					if st.moved[m] == 0 {
						t.Errorf("no connection moved %v, but %v", m, st.moved)
					}
					s.checkInvariantsLocked(t)
				})
			})
		}
	}
}

// checkInvariantsLocked checks what is always true of phases.
func (s *subchannel) checkInvariantsLocked(t *testing.T) {
	t.Helper()
	n, ready := s.countLocked(), *s.ready.Load()
	for _, c := range ready {
		if c.phase != phaseReady {
			t.Errorf("a connection that is %v takes calls", c.phase)
		}
	}
	if n[phaseReady] != len(ready) {
		t.Errorf("%d connections are ready, and %d take calls", n[phaseReady], len(ready))
	}
	if waiting := n[phaseBackoff] + n[phaseHeld]; len(ready) == 0 && waiting > 1 {
		t.Errorf("%d connections back off or are held, want one at most", waiting)
	}
}

func TestTheChildsShutdownRetiresConnectionsInEveryPhase(t *testing.T) {
	for m, script := range driven {
		play(t, `{}`, func(st *stage) {
			script(st)
			s := st.subchannel()
			s.Shutdown()
			st.happened()
			s.mu.Lock()
			defer s.mu.Unlock()
			for c := range s.all {
				if c.phase != phaseRetired {
					t.Errorf("%v, and after Shutdown it is %v", m, c.phase)
				}
			}
			s.checkInvariantsLocked(t)
		})
	}
}

func TestAMoveThatTheTableDoesNotHaveIsCaught(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		c := st.connection(0)
		c.sub.mu.Lock()
		defer c.sub.mu.Unlock()
		defer func() {
			if recover() == nil {
				t.Error("a connection that is being dialled was observed, and nothing was said")
			}
		}()
		c.moveLocked(phaseObserved)
	})
}

// gRPC may report the end of a backoff in the moment in which it is told to shut the
// SubConn down.
func TestAConnectionThatIsRetiredIsNotLostAsWell(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].becomes(connectivity.Connecting)
		st.conns[0].handshakes(1)
		st.conns[0].becomes(connectivity.TransientFailure) // which is held against the server
		st.subchannel().retryNow()
		st.happened()
		st.conns[0].becomes(connectivity.Idle)
		st.expect("the end of the backoff")
		st.conns[0].becomes(connectivity.Shutdown)
		if events := st.happened(); len(events) == 0 {
			t.Error("the child did not hear that it may connect")
		}
	})
}
