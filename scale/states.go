package scale

import (
	"slices"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// onState is told c's states by gRPC, one at a time for the whole channel. A
// SubConn that is dialled goes CONNECTING and then READY, or TRANSIENT_FAILURE
// and after the backoff IDLE. From READY it goes IDLE; if the transport dies at
// once, from CONNECTING too. Shutdown leads to SHUTDOWN from anywhere.
func (c *connection) onState(state balancer.SubConnState) {
	s := c.sub
	s.update(func(e *effects) {
		switch {
		case state.ConnectivityState == connectivity.Shutdown:
			s.onShutdownLocked(c, e)
		case s.closed:
		case state.ConnectivityState == connectivity.Connecting:
			// A GOAWAY may have been here first. The child has to hear this all the same, or it
			// would hear nothing of the connection's end. In TRANSIENT_FAILURE another handshake
			// is late, and callers need not wait.
			if (c.phase == phaseDialling || c.phase == phaseDraining) && s.state == connectivity.Idle {
				s.tellLocked(e, connectivity.Connecting, nil)
			}
		case state.ConnectivityState == connectivity.Ready:
			s.onReadyLocked(c, e)
		case state.ConnectivityState == connectivity.TransientFailure:
			s.onFailureLocked(c, state.ConnectionError, e)
		case c.phase == phaseBackoff:
			s.onBackoffOverLocked(c, e)
		default:
			s.onLostLocked(c, e)
		}
	})
}

// onReadyLocked puts a connection to use.
func (s *subchannel) onReadyLocked(c *connection, e *effects) {
	if c.phase != phaseDialling { // a GOAWAY was here first, or it is being closed
		return
	}
	c.readyAt = time.Now()
	c.rememberDialLocked()
	if s.putOnTrialLocked(c, e) {
		return
	}
	e.warn = !c.tap.Attached()
	s.putToUseLocked(c)
	s.takeOverLocked(c, e)
	if s.state != connectivity.Ready {
		s.dropDialsLocked(c, e)
		s.primary = c
		s.resetHealthLocked()
		s.produced = false
		s.tellConnectingLocked(e)
		s.tellLocked(e, connectivity.Ready, nil)
	}
	e.serve = true
}

// putToUseLocked has c, which is READY, take streams.
func (s *subchannel) putToUseLocked(c *connection) {
	c.moveLocked(phaseReady)
	c.opened = true
	c.setLimitLocked()
	c.rememberLocked()
	ready := append(slices.Clone(*s.ready.Load()), c)
	s.ready.Store(&ready)
	s.stats.opened++
	s.dialFails, s.parked, s.ejectedSinceReady = 0, 0, false
	s.downSince, s.besides = time.Time{}, 0
	s.useDemandLocked()
	s.event(EventDialled, c, c.readyAt.Sub(c.dialledAt), "")
	s.startProbingLocked(c)
	s.planByAgeLocked(c)
	s.armReplaceLocked()
	s.armShrinkLocked()
}

// onFailureLocked is told that a dial failed. While the subchannel is READY that
// only keeps it from growing until the backoff is over.
func (s *subchannel) onFailureLocked(c *connection, err error, e *effects) {
	s.lastErr = s.explain(withCause(err, c.tap.Cause()))
	s.stats.failed++
	s.dialFails++
	s.event(EventDialFailed, c, time.Since(c.dialledAt), oneLine(s.lastErr))
	s.successorFailedLocked(c)
	if c.phase == phaseDraining { // a GOAWAY came first
		if s.oldest() != nil {
			s.retireLocked(c, e)
		} else {
			s.lastLostLocked(c, e)
		}
		return
	}
	if c.phase != phaseDialling {
		return
	}
	s.judgeDialLocked(c)
	s.planRetryLocked(c)
	c.moveLocked(phaseBackoff)
	s.superviseAnewLocked()
	if s.state == connectivity.Ready {
		if !s.servingLocked() {
			s.wakeLocked()
		}
		return
	}
	s.dropDialsLocked(c, e)
	s.leaveLineLocked(nil, e)
	if s.countLocked()[phaseDialling] > 0 { // it did not decide anything
		s.retireLocked(c, e)
		s.besideAt = latest(s.besideAt, latest(c.retryAt, s.heldUntil))
		s.tellLateLocked(e)
	} else {
		s.tellFailureLocked(e, s.lastErr)
	}
	s.superviseAnewLocked() // what it has to decide depends on the state
}

// onBackoffOverLocked is told that gRPC's backoff of c is over. While the subchannel is
// not READY, the child is told IDLE and decides about the next dial, unless a hold lasts
// longer. Otherwise c is dialled again if another connection is needed.
func (s *subchannel) onBackoffOverLocked(c *connection, e *effects) {
	if hold := time.Until(s.heldUntil); hold > 0 && s.state == connectivity.TransientFailure {
		s.holdLocked(c, hold, e)
		return
	}
	c.moveLocked(phaseIdle)
	if s.state != connectivity.Ready {
		s.tellLocked(e, connectivity.Idle, nil)
		return
	}
	s.growLocked(e)
	if e.takeBackDial() {
		s.beginDialLocked(c, e) // its SubConn knows how long to back off the next time
	} else {
		s.retireLocked(c, e)
	}
}

// onLostLocked is told that a connection is gone.
func (s *subchannel) onLostLocked(c *connection, e *effects) {
	switch c.phase {
	case phaseObserved:
		s.stopObservingLocked(c, e)
		return
	case phaseIdle, phaseHeld, phaseRetired: // it has no transport, or its SHUTDOWN follows
		return
	case phaseDialling, phaseBackoff, phaseTrial, phaseReady, phaseDraining:
	}
	s.removeLocked(c, e)
	if c.phase != phaseDraining { // then it was judged and counted before
		s.judgeLocked(c)
		s.countLostLocked(c)
	}
	s.successorFailedLocked(c)
	e.publish = true
	if s.oldest() != nil {
		s.retireLocked(c, e)
		s.changePrimaryLocked(e)
		s.growLocked(e)
		return
	}
	s.lastLostLocked(c, e)
}

// changePrimaryLocked moves the health watch and the child's producers to the oldest
// connection, if that is another one now. A producer itself cannot be moved: the child
// gives it up and builds another when it is told IDLE and READY.
func (s *subchannel) changePrimaryLocked(e *effects) {
	if s.primary == s.oldest() {
		return
	}
	s.primary = s.oldest()
	if !s.produced {
		e.primary = true
		return
	}
	s.resetHealthLocked()
	s.produced = false
	for _, state := range []connectivity.State{connectivity.Idle, connectivity.Connecting, connectivity.Ready} {
		s.tellLocked(e, state, nil)
	}
}

// lastLostLocked is told that c is lost and that no READY connection is left. The child
// hears of it.
func (s *subchannel) lastLostLocked(c *connection, e *effects) {
	s.wakeLocked()
	if n := s.countLocked(); s.state == connectivity.TransientFailure && n[phaseBackoff] > 0 || n[phaseHeld] > 0 {
		s.retireLocked(c, e)
		return
	}
	for other := range s.all {
		if other.phase == phaseBackoff || other.phase == phaseIdle {
			s.retireLocked(other, e)
		}
	}
	dialling := s.countLocked()[phaseDialling] - boolToInt(c.phase == phaseDialling)
	if s.state == connectivity.Ready {
		s.tellLocked(e, connectivity.Idle, nil)
	}
	hold := time.Until(s.heldUntil)
	if dialling == 0 && hold > 0 {
		s.holdLocked(c, hold, e)
		return
	}
	s.retireLocked(c, e)
	switch {
	case dialling > 0 && s.state == connectivity.Idle:
		s.tellLocked(e, connectivity.Connecting, nil)
		s.tellLateLocked(e)
	case dialling == 0 && s.state != connectivity.Idle:
		s.tellLocked(e, connectivity.Idle, nil)
	}
}

// onShutdownLocked is told that c's SubConn is gone. If it was the last one, the child
// hears of it. Some SubConns are shut down for that purpose: see resumeOnGRPCLocked.
func (s *subchannel) onShutdownLocked(c *connection, e *effects) {
	if _, known := s.all[c]; !known {
		return // an errand for a subchannel that was closed meanwhile
	}
	delete(s.all, c)
	c.leavePlaceLocked()
	if s.closed {
		if len(s.all) == 0 && s.starting == 0 {
			e.tell = append(e.tell, balancer.SubConnState{ConnectivityState: connectivity.Shutdown})
		}
		return
	}
	if c.errand != nil {
		c.errand(e)
	}
	s.successorFailedLocked(c)
	if s.primary == c && s.oldest() != nil {
		s.changePrimaryLocked(e)
	}
	n := s.countLocked()
	alive := n[phaseDialling] + n[phaseBackoff] + n[phaseTrial] + n[phaseReady] + n[phaseHeld]
	if alive == 0 && s.state != connectivity.Idle {
		s.wakeLocked()
		e.publish = true
		if c.givenUp != nil {
			s.useDemandLocked()
			if s.state != connectivity.TransientFailure {
				s.tellLocked(e, connectivity.TransientFailure, c.givenUp)
			}
		}
		s.tellLocked(e, connectivity.Idle, nil)
	}
	if s.state == connectivity.Ready && s.oldest() != nil {
		s.changePrimaryLocked(e)
	}
}

// onGoAway is told of a GOAWAY by the transport's reader, before the transport itself
// knows and reports IDLE. From now on no new stream goes to c, and its successor is
// dialled. onGoAway must not block.
func (c *connection) onGoAway(g tap.GoAway) {
	s := c.sub
	if !g.Graceful() {
		c.drainedAt.CompareAndSwap(0, max(int64(c.now()), 1))
	}
	s.update(func(e *effects) {
		switch {
		case s.closed:
		case c.phase == phaseObserved:
			s.observedEndLocked(c, g, e)
		case c.phase != phaseReady && c.phase != phaseDialling && c.phase != phaseTrial:
		case g.Held:
			s.planLocked(c, time.Now(), "GOAWAY")
			s.learnAgeLocked(c)
			s.armReplaceLocked()
		default:
			s.drainLocked(c, e)
			s.countLostLocked(c)
			if g.Code == 0 {
				s.learnAgeLocked(c)
			}
		}
	})
}

// drainLocked takes c out of use before gRPC knows that its transport is finished, and
// has another connection dialled if none is left.
func (s *subchannel) drainLocked(c *connection, e *effects) {
	c.moveLocked(phaseDraining)
	c.takeOut()
	s.removeLocked(c, e)
	s.judgeLocked(c)
	s.successorFailedLocked(c)
	s.growLocked(e)
	if s.oldest() == nil && s.countLocked()[phaseDialling] == 0 && time.Until(s.heldUntil) <= 0 && !s.policy.settings.Load().unsupervised {
		e.dial(1)
	}
}
