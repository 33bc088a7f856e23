package scale

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// sequel is what a change of state leads to, to be done once mu is free, in this
// order.
type sequel struct {
	tell    []balancer.SubConnState // to the child
	serve   bool                    // calls that wait; after the child, which may want a stream for a health watch
	publish bool                    // a new picker, for calls that picked what is gone
	watch   bool                    // the oldest connection is another one
	retire  []*connection           // to be shut down by gRPC
	connect *connection
	dials   int
	kill    []*connection // in the handshake, because of
	killed  error
	warn    bool // no tap
}

func (q *sequel) do(s *subchannel) {
	for _, state := range q.tell {
		s.child.tell(s, state)
		if state.ConnectivityState == connectivity.Connecting {
			s.policy.scheduleColdGrowth()
		}
	}
	if q.serve {
		s.mu.Lock()
		s.dispatchLocked()
		q.dials += s.growLocked()
		s.mu.Unlock()
	}
	if q.publish {
		s.policy.republish()
	}
	if q.watch {
		s.watchPrimaryHealth()
	}
	for _, c := range q.retire { // closing a connection may wait for the peer
		s.policy.tasks.run(c.sc.Shutdown)
	}
	for _, c := range q.kill {
		c.tap.Kill(q.killed)
	}
	if q.connect != nil {
		q.connect.sc.Connect()
	}
	s.dial(q.dials)
	if q.warn {
		s.warnUntapped()
	}
}

// retireLocked closes c to new streams and notes that gRPC is to close it when its
// streams are done.
func (q *sequel) retireLocked(c *connection) {
	c.phase = phaseOut
	c.takeOut()
	c.probeTimer.stop()
	q.retire = append(q.retire, c)
}

// tellLocked notes that the child is to be told state.
func (s *subchannel) tellLocked(q *sequel, state connectivity.State, err error) {
	s.state = state
	q.tell = append(q.tell, balancer.SubConnState{ConnectivityState: state, ConnectionError: err})
}

// onState is told c's states by gRPC, one at a time for the whole channel. A
// SubConn that is dialled goes CONNECTING and then READY, or TRANSIENT_FAILURE
// and after the backoff IDLE. From READY it goes IDLE; if the transport dies at
// once, from CONNECTING too. Shutdown leads to SHUTDOWN from anywhere.
func (c *connection) onState(state balancer.SubConnState) {
	s := c.sub
	var q sequel
	s.mu.Lock()
	switch {
	case state.ConnectivityState == connectivity.Shutdown:
		s.onShutdownLocked(c, &q)
	case s.closed:
	case state.ConnectivityState == connectivity.Connecting:
		if c.phase == phaseDialling && (s.state == connectivity.Idle || s.state == connectivity.TransientFailure) {
			s.tellLocked(&q, connectivity.Connecting, nil)
		}
	case state.ConnectivityState == connectivity.Ready:
		s.onReadyLocked(c, &q)
	case state.ConnectivityState == connectivity.TransientFailure:
		s.onFailureLocked(c, state.ConnectionError, &q)
	case c.phase == phaseBackoff:
		s.onBackoffOverLocked(c, &q)
	default:
		s.onLostLocked(c, &q)
	}
	s.mu.Unlock()
	q.do(s)
}

// onReadyLocked puts a connection to use.
func (s *subchannel) onReadyLocked(c *connection, q *sequel) {
	if c.phase != phaseDialling { // a GOAWAY was here first, or it is being closed
		return
	}
	c.readyAt = time.Now()
	c.rememberDialLocked()
	if s.putOnTrialLocked(c) {
		return
	}
	q.warn = !c.tap.Attached()
	s.putToUseLocked(c)
	s.takeOverLocked(c, q)
	if s.state == connectivity.Idle {
		s.tellLocked(q, connectivity.Connecting, nil)
	}
	if s.state != connectivity.Ready {
		s.dropDialsLocked(c, q)
		s.primary = c
		s.resetHealthLocked()
		s.produced = false
		s.tellLocked(q, connectivity.Ready, nil)
	}
	q.serve = true
}

// putToUseLocked has c, which is READY, take streams.
func (s *subchannel) putToUseLocked(c *connection) {
	c.phase, c.opened = phaseReady, true
	c.setLimitLocked()
	c.rememberLocked()
	ready := append(slices.Clone(*s.ready.Load()), c)
	s.ready.Store(&ready)
	s.stats.opened++
	s.dialFails, s.parked, s.ejectedSinceReady = 0, 0, false
	s.useDemandLocked()
	s.event(EventDialled, c, c.readyAt.Sub(c.dialledAt), "")
	s.startProbingLocked(c)
	s.planByAgeLocked(c)
	s.armReplaceLocked()
	s.armShrinkLocked()
}

// onFailureLocked is told that a dial failed. While the subchannel is READY that
// only keeps it from growing until the backoff is over.
func (s *subchannel) onFailureLocked(c *connection, err error, q *sequel) {
	s.lastErr = s.explain(withCause(err, c.tap.Cause()))
	s.stats.failed++
	s.dialFails++
	s.event(EventDialFailed, c, time.Since(c.dialledAt), oneLine(s.lastErr))
	s.successorFailedLocked(c)
	if c.phase == phaseOut && c.judged { // a GOAWAY came first
		if s.oldest() != nil {
			q.retireLocked(c)
		} else {
			s.lastLostLocked(c, q)
		}
		return
	}
	if c.phase != phaseDialling {
		return
	}
	s.judgeDialLocked(c)
	c.phase = phaseBackoff
	s.superviseTick.stop()
	s.armSuperviseLocked()
	if s.state == connectivity.Ready {
		if !s.servingLocked() {
			s.wakeLocked()
		}
		return
	}
	s.dropDialsLocked(c, q)
	if s.countLocked()[phaseDialling] > 0 { // it did not decide anything
		q.retireLocked(c)
		return
	}
	s.wakeLocked()
	s.tellLocked(q, connectivity.TransientFailure, s.lastErr)
	s.superviseTick.stop() // what it has to decide depends on the state
	s.armSuperviseLocked()
}

// onBackoffOverLocked may try c again. It is the child's to decide while it is
// not READY, once no hold is left.
func (s *subchannel) onBackoffOverLocked(c *connection, q *sequel) {
	if hold := time.Until(s.heldUntil); hold > 0 && s.state == connectivity.TransientFailure {
		s.holdLocked(c, hold, q)
		return
	}
	c.phase = phaseIdle
	if s.state != connectivity.Ready {
		s.tellLocked(q, connectivity.Idle, nil)
		return
	}
	q.dials = s.growLocked()
	if q.dials == 0 {
		q.retireLocked(c)
		return
	}
	q.dials--
	s.starting--
	s.beginDialLocked(c)
	q.connect = c // its SubConn knows how long to back off the next time
}

// onLostLocked is told that a connection is gone.
func (s *subchannel) onLostLocked(c *connection, q *sequel) {
	if c.phase == phaseObserved {
		s.stopObservingLocked(c, q)
		return
	}
	if c.phase == phaseIdle || c.phase == phaseHeld || c.phase == phaseOut && !c.judged {
		return // it has no connection, or it was retired and its SHUTDOWN follows
	}
	s.removeLocked(c)
	s.countLostLocked(c)
	s.successorFailedLocked(c)
	q.publish = true
	if s.oldest() != nil {
		q.retireLocked(c)
		s.changePrimaryLocked(q)
		q.dials = s.growLocked()
		return
	}
	s.lastLostLocked(c, q)
}

// changePrimaryLocked moves what stands on the oldest connection, if that is another
// one now. A producer cannot be moved: the child gives it up and builds another
// when it is told IDLE and READY.
func (s *subchannel) changePrimaryLocked(q *sequel) {
	if s.primary == s.oldest() {
		return
	}
	s.primary = s.oldest()
	if !s.produced {
		q.watch = true
		return
	}
	s.resetHealthLocked()
	s.produced = false
	for _, state := range []connectivity.State{connectivity.Idle, connectivity.Connecting, connectivity.Ready} {
		s.tellLocked(q, state, nil)
	}
}

// lastLostLocked leaves READY, or what was to become READY, as c was the last
// connection.
func (s *subchannel) lastLostLocked(c *connection, q *sequel) {
	s.wakeLocked()
	if s.state == connectivity.TransientFailure || s.countLocked()[phaseHeld] > 0 { // another one backs off, or is held
		q.retireLocked(c)
		return
	}
	for other := range s.all {
		if other.phase == phaseBackoff || other.phase == phaseIdle {
			q.retireLocked(other)
		}
	}
	dialling := s.countLocked()[phaseDialling] - boolToInt(c.phase == phaseDialling)
	if s.state == connectivity.Ready {
		s.tellLocked(q, connectivity.Idle, nil)
	}
	hold := time.Until(s.heldUntil)
	if dialling == 0 && hold > 0 {
		s.holdLocked(c, hold, q)
		return
	}
	q.retireLocked(c)
	switch {
	case dialling > 0 && s.state == connectivity.Idle:
		s.tellLocked(q, connectivity.Connecting, nil)
	case dialling == 0 && s.state != connectivity.Idle:
		s.tellLocked(q, connectivity.Idle, nil)
	}
}

// holdLocked behaves towards the child like a dial that takes its time, and when the
// hold is long like one that failed and backs off. The lost connection stays for that
// time: its SHUTDOWN, told on gRPC's goroutine, ends the hold.
func (s *subchannel) holdLocked(c *connection, hold time.Duration, q *sequel) {
	c.phase = phaseHeld
	c.takeOut()
	if s.state == connectivity.Idle {
		s.tellLocked(q, connectivity.Connecting, nil)
	}
	if hold > shortHold && s.state != connectivity.TransientFailure {
		s.tellLocked(q, connectivity.TransientFailure, s.lastErr)
	}
	s.armLocked(&s.held, hold, func() { s.endHold(c) })
}

// endHold ends the hold of c, unless another connection that was lost meanwhile
// has made it longer.
func (s *subchannel) endHold(c *connection) {
	s.mu.Lock()
	hold := time.Until(s.heldUntil)
	if hold > 0 {
		s.armLocked(&s.held, hold, func() { s.endHold(c) })
	}
	s.mu.Unlock()
	if hold <= 0 {
		c.sc.Shutdown()
	}
}

// onShutdownLocked is told that a SubConn is gone. The child hears of it if it was
// the last one, be it that the child shut the subchannel down, gave it other
// addresses, waited for the end of a hold, or that the dial was given up.
func (s *subchannel) onShutdownLocked(c *connection, q *sequel) {
	delete(s.all, c)
	if s.closed {
		if len(s.all) == 0 && s.starting == 0 {
			q.tell = append(q.tell, balancer.SubConnState{ConnectivityState: connectivity.Shutdown})
		}
		return
	}
	s.successorFailedLocked(c)
	if s.primary == c && s.oldest() != nil {
		s.changePrimaryLocked(q)
	}
	n := s.countLocked()
	alive := n[phaseDialling] + n[phaseBackoff] + n[phaseTrial] + n[phaseReady] + n[phaseHeld]
	if alive == 0 && s.state != connectivity.Idle {
		s.wakeLocked()
		q.publish = true
		if c.givenUp != nil {
			s.useDemandLocked()
			if s.state != connectivity.TransientFailure {
				s.tellLocked(q, connectivity.TransientFailure, c.givenUp)
			}
		}
		s.tellLocked(q, connectivity.Idle, nil)
	}
	if s.state == connectivity.Ready && s.oldest() != nil {
		s.changePrimaryLocked(q)
	}
}

// onGoAway is told of a GOAWAY by the transport's reader, before the transport
// itself, which will report IDLE. The time between the two is used: no new stream
// goes to c, and its successor is dialled. It must not block.
func (c *connection) onGoAway(g tap.GoAway) {
	s := c.sub
	if !g.Graceful() {
		c.drainedAt.CompareAndSwap(0, max(int64(c.now()), 1))
	}
	s.mu.Lock()
	s.observedEndLocked(c, g)
	if s.closed || c.phase != phaseReady && c.phase != phaseDialling && c.phase != phaseTrial {
		s.mu.Unlock()
		return
	}
	if g.Held {
		s.planLocked(c, time.Now(), "GOAWAY")
		s.learnAgeLocked(c)
		s.armReplaceLocked()
		s.mu.Unlock()
		return
	}
	dials := s.drainLocked(c)
	s.countLostLocked(c)
	if g.Code == 0 {
		s.learnAgeLocked(c)
	}
	s.mu.Unlock()
	s.dial(dials)
}

// drainLocked takes c out of use, whose transport gRPC does not know to be of no use
// yet, and says how many connections to dial in its place.
func (s *subchannel) drainLocked(c *connection) (dials int) {
	c.phase = phaseOut
	c.takeOut()
	s.removeLocked(c)
	s.judgeLocked(c)
	s.successorFailedLocked(c)
	dials = s.growLocked()
	if s.oldest() == nil && s.countLocked()[phaseDialling] == 0 && time.Until(s.heldUntil) <= 0 {
		s.starting++
		dials++
	}
	return dials
}

// countLostLocked counts c as lost, once.
func (s *subchannel) countLostLocked(c *connection) {
	if c.counted {
		return
	}
	c.counted = true
	s.judgeLocked(c)
	if c.opened {
		s.stats.lost++
		s.event(EventLost, c, time.Since(c.readyAt), oneLine(s.lastErr))
	}
}

// reason is why c ended, for lastErr.
func (c *connection) reason(lived time.Duration) error {
	s := c.sub
	what := "closed"
	if g, ok := c.tap.LastGoAway(); ok {
		what = fmt.Sprintf("ended by GOAWAY (code %d, %q)", g.Code, g.Debug)
	} else if cause := c.tap.Cause(); cause != nil {
		if inner := errors.Unwrap(cause); inner != nil && strings.HasPrefix(cause.Error(), "tap: closed by the peer: ") {
			cause = fmt.Errorf("closed by the peer: error reading from server: %w", inner) // as gRPC tells the calls that were on it
		}
		return fmt.Errorf("scale: connection to %s lost after %v: %w", s.addr(), lived.Round(time.Millisecond), cause)
	}
	return fmt.Errorf("scale: connection to %s %s after %v", s.addr(), what, lived.Round(time.Millisecond))
}

// withCause adds what the bytes told to what gRPC says.
func withCause(err, cause error) error {
	if err == nil || cause == nil || errors.Is(err, cause) || strings.Contains(err.Error(), cause.Error()) {
		return err
	}
	return fmt.Errorf("%w (%w)", err, cause)
}

// oneLine is err's text, which may come from the peer in part, as one line.
func oneLine(err error) string {
	if err == nil {
		return ""
	}
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r < ' ' }), " ")
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
