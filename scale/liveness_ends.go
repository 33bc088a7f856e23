package scale

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/connectivity"

	"github.com/davidwartell/go-grpcpool/internal/pause"
	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// What the end of a connection says about its server, and how soon the next dial may
// follow.
//
// A failure reached the server if a connection was lost within longEnough and the server
// never answered a call on it, or if a dial failed after the server had taken the
// connection: each cost the server a handshake. After the first in a row the next dial
// follows at once, after each further one it is held back, as pause.Costly says. gRPC
// itself forgets its backoff when a dial succeeds. Connections that were dialled before the
// last such failure and end after it tell nothing new.
//
// A connection that has answered a call is never short-lived: some servers end each
// connection after a number of calls. One that the server has flooded always is.
const (
	longEnough = time.Second

	// During a hold of shortHold or less calls wait. During a longer one they fail, or
	// they would wait for as long as the trouble lasts.
	shortHold = 850 * time.Millisecond
)

// anyUsefulLocked reports whether one of the connections has shown that it is of use.
func (s *subchannel) anyUsefulLocked(now time.Time) bool {
	return slices.ContainsFunc(*s.ready.Load(), func(c *connection) bool {
		return c.hasAnswered.Load() || now.Sub(c.readyAt) >= longEnough
	})
}

// judgeLocked is called once for each dial or use of c, when that has ended. It decides how
// soon the next dial may follow.
func (s *subchannel) judgeLocked(c *connection) {
	lived := time.Duration(0)
	if !c.readyAt.IsZero() {
		lived = time.Since(c.readyAt)
	}
	s.lastErr = c.reason(lived)
	flooded := errors.Is(c.tap.Cause(), tap.ErrFlood)
	if (lived >= longEnough || c.hasAnswered.Load()) && !flooded {
		s.noteUsefulLocked()
	} else {
		s.noteCostlyLocked(c)
	}
}

// noteUsefulLocked is told that a connection that has ended was of use.
func (s *subchannel) noteUsefulLocked() {
	s.shortLived, s.heldUntil = 0, time.Time{}
	s.rememberFailuresLocked()
}

// noteCostlyLocked is told that c has failed and that it reached the server.
func (s *subchannel) noteCostlyLocked(c *connection) {
	if s.policy.settings.Load().unsupervised || c.dialledAt.Before(s.judgedAt) {
		return
	}
	s.shortLived++
	s.judgedAt = time.Now()
	s.rememberFailuresLocked()
	if s.shortLived > 1 {
		s.heldUntil = s.judgedAt.Add(pause.Costly(s.shortLived - 1))
	}
}

func (s *subchannel) rememberFailuresLocked() {
	s.policy.channel.memory.note(s.addr(), func(l *learned) { l.shortLived, l.judgedAt = s.shortLived, s.judgedAt })
}

// judgeDialLocked is told that the dial of c has failed.
func (s *subchannel) judgeDialLocked(c *connection) {
	if !c.reached().IsZero() && !c.unheard {
		s.noteCostlyLocked(c)
	}
}

// countLostLocked counts c, which has ended, as lost if it ever was put to use.
func (s *subchannel) countLostLocked(c *connection) {
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

// withCause adds to gRPC's error what the tap saw in the bytes of the connection.
func withCause(err, cause error) error {
	if err == nil || cause == nil || errors.Is(err, cause) || strings.Contains(err.Error(), cause.Error()) {
		return err
	}
	return fmt.Errorf("%w (%w)", err, cause)
}

// holdLocked keeps the lost connection c for the time of a hold, so that no other is
// dialled. To the child this looks like a slow dial or, if the hold is long, like a dial
// that failed and backs off.
func (s *subchannel) holdLocked(c *connection, hold time.Duration, e *effects) {
	c.moveLocked(phaseHeld)
	c.takeOut()
	if s.state == connectivity.Idle {
		s.tellLocked(e, connectivity.Connecting, nil)
	}
	if hold > shortHold && s.state != connectivity.TransientFailure {
		s.tellLocked(e, connectivity.TransientFailure, s.lastErr)
	}
	s.armLocked(&s.held, hold, func() { s.endHold(c) })
}

// endHold ends the hold of c, unless another connection that was lost meanwhile
// has made it longer.
func (s *subchannel) endHold(c *connection) {
	s.update(func(e *effects) {
		if hold := time.Until(s.heldUntil); hold > 0 {
			s.armLocked(&s.held, hold, func() { s.endHold(c) })
			return
		}
		s.resumeOnGRPCLocked(c, e)
	})
}

// oneLine is err's text, part of which may come from the peer, as one line.
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
