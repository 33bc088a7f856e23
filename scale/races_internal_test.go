package scale

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"
)

// play runs a script in a bubble.
func play(t *testing.T, config string, script func(st *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { script(newStage(t, config)) })
}

func TestADoneThatComesAfterTheEndCountsOnce(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(1)
		running := st.begin()
		c := st.connection(0)
		st.conns[0].becomes(connectivity.Idle)
		if n := c.inFlight(); n != 1 {
			t.Errorf("%d streams on the lost connection, want the 1 that was taken", n)
		}
		running.end()
		if n := c.streams.Load(); n != outBit {
			t.Errorf("the count is %#x, want nothing but outBit", n)
		}
		if c.take(noLimit) {
			t.Error("a lost connection takes a stream")
		}
	})
}

func TestADoneAfterCloseIsHarmless(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(1)
		running, waiting := st.begin(), st.begin()
		c := st.connection(0)
		st.policy.Close()
		if waiting.on() != -2 || !errors.Is(waiting.err, balancer.ErrNoSubConnAvailable) {
			t.Errorf("a call that waited when the policy was closed got %v, want to pick again", waiting.err)
		}
		running.end()
		if n := c.streams.Load(); n != outBit {
			t.Errorf("the count is %#x, want nothing but outBit", n)
		}
	})
}

func TestALimitBelowWhatIsInFlightLetsNothingBegin(t *testing.T) {
	play(t, `{"maxConnectionsPerSubchannel": 1}`, func(st *stage) {
		st.conns[0].connects(3)
		calls := []*call{st.begin(), st.begin(), st.begin()}
		st.conns[0].allows(1)
		waiting := st.begin()
		calls[0].end()
		calls[1].end()
		if waiting.on() != -1 {
			t.Error("a call began with 1 in flight and a limit of 1")
		}
		calls[2].end()
		if waiting.on() != 0 {
			t.Error("the call did not begin when there was nothing in flight")
		}
		st.conns[0].allows(0)
		waiting.end()
		next := st.begin()
		if next.on() != -1 {
			t.Error("a call began with a limit of 0")
		}
		st.conns[0].allows(1)
		if next.on() != 0 {
			t.Error("the call did not begin when the limit was raised")
		}
	})
}

func TestAStreamHandedToACallThatIsCancelledIsGivenToTheNext(t *testing.T) {
	play(t, `{"maxConnectionsPerSubchannel": 1}`, func(st *stage) {
		st.conns[0].connects(1)
		for range 100 { // select chooses at random between the stream and the cancel
			running, cancelled, next := st.begin(), st.begin(), st.begin()
			s := st.subchannel()
			s.mu.Lock()
			cancelled.cancel()
			s.handLocked(st.connectionLocked(0)) // as running.end would, at the worst moment
			s.mu.Unlock()
			switch cancelled.on() {
			case 0: // it had the stream
				cancelled.end()
			case -2:
				if status.Code(cancelled.err) != codes.Canceled {
					t.Fatalf("the cancelled call got %v", cancelled.err)
				}
			default:
				t.Fatal("the cancelled call still waits")
			}
			_ = running // its stream went to cancelled
			if next.on() != 0 {
				t.Fatal("the next call did not get the stream")
			}
			next.end()
			if n := st.connection(0).streams.Load(); n != 0 {
				t.Fatalf("%d streams are taken, want none", n)
			}
		}
	})
}

func (st *stage) connectionLocked(n int) *connection {
	for c := range st.subchannel().all {
		if c.sc == st.conns[n] {
			return c
		}
	}
	return nil
}

func TestAGoAwayTakesTheConnectionOutAndDialsBeforeTheTransportKnows(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(2)
		running := st.begin()
		time.Sleep(time.Minute)
		st.happened()
		st.conns[0].goesAway()
		st.expect("a GOAWAY", "connect 1")
		waiting := st.begin()
		if waiting.on() != -1 {
			t.Error("a call went to a connection that is going away")
		}
		st.conns[1].becomes(connectivity.Connecting)
		st.expect("the new one connects, the child need not know")
		st.conns[0].becomes(connectivity.Idle)
		st.expect("the transport reports it", "picker IDLE", "picker CONNECTING", "picker CONNECTING", "shutdown 0")
		if !errors.Is(waiting.err, balancer.ErrNoSubConnAvailable) {
			t.Errorf("the call that waited got %v, want to pick again", waiting.err)
		}
		st.conns[1].handshakes(2)
		st.conns[1].becomes(connectivity.Ready)
		st.expect("the new one is READY", "picker READY")
		if got := st.begin(); got.on() != 1 {
			t.Errorf("a call is on %d, want the new connection", got.on())
		}
		running.end() // on the old one, which gRPC lets finish
	})
}

func TestAGoAwayThatIsFasterThanReadyIsNotOverlooked(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.happened()
		st.conns[0].becomes(connectivity.Connecting)
		st.conns[0].handshakes(2)
		st.conns[0].goesAway()
		st.expect("a GOAWAY before READY", "connect 1")
		st.conns[0].becomes(connectivity.Ready) // gRPC's report is late
		st.expect("READY of what goes away")
		st.conns[0].becomes(connectivity.Idle)
		st.expect("its end", "picker CONNECTING", "shutdown 0")
		st.conns[1].connects(2)
		st.expect("the second is READY", "picker READY")
	})
}

func TestShrinkingLeavesAConnectionThatWasJustPicked(t *testing.T) {
	play(t, `{"shrinkAfter": "4s"}`, func(st *stage) {
		st.conns[0].connects(1)
		first, second := st.begin(), st.begin()
		st.conns[1].connects(1)
		second.end()
		s := st.subchannel()
		time.Sleep(4500 * time.Millisecond) // the next look would close it
		again := st.begin()
		if again.on() != 1 {
			t.Fatalf("the call is on %d, want 1", again.on())
		}
		time.Sleep(time.Minute)
		if got := len(*s.ready.Load()); got != 2 {
			t.Errorf("%d connections, want the 2 in use", got)
		}
		again.end()
		st.happened()
		time.Sleep(6 * time.Second)
		st.expect("it is closed", "picker READY", "shutdown 1")
		first.end()
	})
}

func TestWhileReadyAFailedDialIsNotTheChildsBusiness(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(1)
		running, waiting := st.begin(), st.begin()
		st.happened()
		st.conns[1].becomes(connectivity.Connecting)
		st.conns[1].becomes(connectivity.TransientFailure)
		st.expect("the second dial fails")
		third := st.begin()
		st.expect("a third call waits, and nothing is dialled")
		st.conns[1].becomes(connectivity.Idle)
		st.expect("the backoff is over", "connect 1", "connect 2")
		st.conns[1].becomes(connectivity.Connecting)
		st.conns[1].becomes(connectivity.TransientFailure)
		st.conns[2].becomes(connectivity.Connecting)
		st.conns[2].becomes(connectivity.TransientFailure)
		running.end()
		if waiting.on() != 0 || third.on() != -1 {
			t.Errorf("the calls are on %d and %d, want the first to have the stream", waiting.on(), third.on())
		}
		waiting.end()
		third.end()
		st.happened()
		st.conns[1].becomes(connectivity.Idle)
		st.expect("nobody waits any more", "shutdown 1")
	})
}

func TestAfterTheLastConnectionWaitingCallsAreNotParkedInABackoff(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(1)
		_ = st.begin()
		waiting := st.begin()
		st.conns[1].becomes(connectivity.Connecting)
		st.conns[1].becomes(connectivity.TransientFailure)
		time.Sleep(time.Minute)
		st.happened()
		st.conns[0].becomes(connectivity.Idle)
		if !errors.Is(waiting.err, balancer.ErrNoSubConnAvailable) {
			t.Errorf("the call that waited got %v, want to pick again", waiting.err)
		}
		_ = st.begin() // makes pick_first connect
		events := st.happened()
		if last := events[len(events)-1]; last != "connect 2" {
			t.Errorf("events %q, want a dial at once", events)
		}
	})
}

func TestShuttingDownASubchannelWakesWhoWaits(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(1)
		running, waiting := st.begin(), st.begin()
		st.subchannel().Shutdown()
		if waiting.on() != -2 || !errors.Is(waiting.err, balancer.ErrNoSubConnAvailable) {
			t.Errorf("the call that waited got %v, want to pick again", waiting.err)
		}
		running.end()
		st.happened()
	})
}

func TestOfTwoConnectionsThatAreLostTogetherOneEndsTheHold(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		for _, c := range []int{0, 1} { // both GOAWAYs are seen before the first IDLE
			st.conns[c].becomes(connectivity.Connecting)
			st.conns[c].handshakes(5)
			st.conns[c].goesAway()
		}
		st.happened()
		st.conns[0].becomes(connectivity.Idle)
		st.expect("the first is lost", "picker CONNECTING")
		st.conns[1].becomes(connectivity.Idle)
		st.expect("the second is lost", "picker CONNECTING", "shutdown 1")
		time.Sleep(time.Second)
		st.expect("the hold is over", "shutdown 0")
		st.conns[1].becomes(connectivity.Shutdown)
		st.expect("the second's SubConn is gone")
		st.conns[0].becomes(connectivity.Shutdown)
		st.expect("the first's SubConn is gone", "picker IDLE", "picker IDLE")
		st.begin()
		st.expectInAnyOrder("a call has pick_first connect", "connect 2", "picker CONNECTING")
	})
}

func TestTheHealthWatchMovesWhenItsConnectionGoesAway(t *testing.T) {
	play(t, `{"childPolicy": [{"round_robin": {}}]}`, func(st *stage) {
		serving := balancer.SubConnState{ConnectivityState: connectivity.Ready}
		beginning := balancer.SubConnState{ConnectivityState: connectivity.Connecting}
		st.conns[0].connects(2)
		st.conns[0].health(beginning)
		st.conns[0].health(serving)
		first, second := st.begin(), st.begin()
		st.conns[1].connects(2)
		if first.on() != 0 || second.on() != 1 {
			t.Fatalf("the calls are on %d and %d, want the watch to have a stream on 0", first.on(), second.on())
		}
		third := st.begin()
		time.Sleep(time.Minute)
		st.happened()
		st.conns[0].goesAway()
		st.conns[0].becomes(connectivity.Idle)
		st.expect("connection 1 is full, so the watch waits", "picker READY", "shutdown 0")
		second.end()
		st.expect("it has a stream", "watch 1")
		st.conns[1].health(beginning)
		st.expect("the child is spared the beginning")
		fourth := st.begin()
		if fourth.on() != -1 {
			t.Error("a call has the watch's stream")
		}
		st.happened()
		st.conns[1].health(balancer.SubConnState{ConnectivityState: connectivity.TransientFailure, ConnectionError: errors.New("not serving")})
		if events := st.happened(); len(events) == 0 || events[len(events)-1] != "picker TRANSIENT_FAILURE" {
			t.Errorf("events %q, want the child to hear of it", events)
		}
		third.end()
	})
}

func TestALateReportOfAConnectionThatIsGoneChangesNothing(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].becomes(connectivity.Connecting)
		for _, c := range []int{0, 1} {
			st.conns[c].handshakes(5)
			st.conns[c].goesAway()
		}
		st.conns[0].becomes(connectivity.Idle)
		st.happened()
		st.conns[1].becomes(connectivity.Connecting)
		st.expect("gRPC's word that the second connects comes after its GOAWAY")
		st.conns[1].becomes(connectivity.Idle)
		st.expect("and so does its end", "picker CONNECTING", "shutdown 1")
		time.Sleep(time.Second)
		st.conns[1].becomes(connectivity.Shutdown)
		st.happened()
		st.conns[0].becomes(connectivity.Shutdown)
		st.expect("the hold is over", "picker IDLE", "picker IDLE")
	})
}

func TestSettingsThatChangeWhileAProbeIsOutDoNotBeginASecondWatch(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(5)
		s, c := st.subchannel(), st.connection(0)
		st.conns[0].deaf.Store(true)
		for !c.probing.Load() {
			time.Sleep(time.Millisecond)
		}
		old := defaultSettings()
		for _, interval := range []time.Duration{time.Second / 2, time.Second / 3, time.Second / 2} {
			changed := old
			changed.probeInterval = interval
			st.policy.settings.Store(&changed)
			s.settingsChanged(&old, &changed)
			old = changed
		}
		st.conns[0].deaf.Store(false)
		time.Sleep(800 * time.Millisecond)
		s.mu.Lock()
		probes := s.stats.probes
		s.mu.Unlock()
		if probes != 0 {
			t.Errorf("%d probes have ended beside the one that is out", probes)
		}
	})
}

func TestSettingsThatChangeAllTheTimeDoNotPutTimersOff(t *testing.T) {
	play(t, `{"shrinkAfter": "4s"}`, func(st *stage) {
		st.conns[0].connects(1)
		first, second := st.begin(), st.begin()
		st.conns[1].connects(1)
		first.end()
		second.end()
		st.happened()
		s, old := st.subchannel(), *st.policy.settings.Load()
		for i := range 100 {
			changed := old
			changed.unlimitedStreams = 50 + i
			st.policy.settings.Store(&changed)
			s.settingsChanged(&old, &changed)
			old = changed
			time.Sleep(100 * time.Millisecond)
		}
		st.expect("the connection that nobody uses is closed", "picker READY", "shutdown 1")
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.stats.probes < 5 {
			t.Errorf("%d probes in ten seconds", s.stats.probes)
		}
	})
}

func TestAChildThatShutsDownWhatIsLostHearsOfIt(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(5)
		time.Sleep(time.Minute)
		st.conns[0].becomes(connectivity.Idle)
		st.conns[0].becomes(connectivity.Shutdown)
		st.told = nil
		st.happened()
		st.subchannel().Shutdown()
		st.expect("there is no SubConn whose SHUTDOWN could tell it, so one is made", "shutdown 1")
		if len(st.conns) != 2 {
			t.Fatalf("%d SubConns, want another one", len(st.conns))
		}
		st.conns[1].becomes(connectivity.Shutdown)
		if want := []connectivity.State{connectivity.Shutdown}; !slices.Equal(st.told, want) {
			t.Errorf("the child was told %v, want %v", st.told, want)
		}
	})
}

func TestClosingWhatIsLostMakesNoSubConn(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(5)
		time.Sleep(time.Minute)
		st.conns[0].becomes(connectivity.Idle)
		st.conns[0].becomes(connectivity.Shutdown)
		st.policy.Close()
		if len(st.conns) != 1 {
			t.Errorf("%d SubConns were made after the channel was closed", len(st.conns)-1)
		}
	})
}

func TestAStateWithoutAPickerReachesGRPC(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.happened()
		st.policy.current.UpdateState(balancer.State{ConnectivityState: connectivity.Ready})
		st.expect("the child has a state and no picker", "picker READY")
		if st.picker != nil {
			t.Errorf("gRPC got a %T, want none, so that calls wait", st.picker)
		}
		st.policy.noteParkedCall() // by a call that has the picker of before
		st.conns[0].connects(5)
		st.expect("pick_first goes on", "picker READY")
		if got := st.begin(); got.on() != 0 {
			t.Errorf("a call is on %d", got.on())
		}
	})
}

func TestOtherAddressesDoNotEndABackoff(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].becomes(connectivity.Connecting)
		st.conns[0].becomes(connectivity.TransientFailure)
		st.happened()
		st.subchannel().UpdateAddresses([]resolver.Address{{Addr: "b"}, {Addr: "c"}})
		st.expect("the SubConn that backs off gets them", "addresses of 0: b c")
		st.conns[0].becomes(connectivity.Idle)
		st.expect("the backoff is over", "connect 0")
	})
}

func TestAHealthWatchThatBeginsLateDoesNotTakeThePlaceOfTheNextListener(t *testing.T) {
	play(t, `{"childPolicy": [{"round_robin": {}}]}`, func(st *stage) {
		st.conns[0].connects(2)
		st.conns[0].health(balancer.SubConnState{ConnectivityState: connectivity.Connecting})
		st.conns[0].health(balancer.SubConnState{ConnectivityState: connectivity.Ready})
		first, second := st.begin(), st.begin()
		st.conns[1].connects(1)
		if first.on() != 0 || second.on() != 1 {
			t.Fatalf("the calls are on %d and %d", first.on(), second.on())
		}
		st.conns[0].becomes(connectivity.Idle) // the watch waits for a stream on the other
		st.conns[1].slow = make(chan struct{})
		release := st.conns[1].slow
		second.end() // which begins it, slowly
		var told []connectivity.State
		st.subchannel().RegisterHealthListener(func(s balancer.SubConnState) { told = append(told, s.ConnectivityState) })
		synctest.Wait()
		close(release)
		synctest.Wait()
		st.conns[1].health(balancer.SubConnState{ConnectivityState: connectivity.Connecting})
		st.conns[1].health(balancer.SubConnState{ConnectivityState: connectivity.TransientFailure})
		if want := []connectivity.State{connectivity.Connecting, connectivity.TransientFailure}; !slices.Equal(told, want) {
			t.Errorf("the child's latest listener was told %v, want %v", told, want)
		}
		if n := st.connection(1).inFlight(); n != 1 {
			t.Errorf("%d streams are taken, want the watch's", n)
		}
	})
}
