package scale

import (
	"context"
	"runtime"
	"time"
)

// A peer that seems silent may have answered a process that did not run: one that is
// short of CPU, stops for a garbage collection, was stopped, or slept with its machine. So
// before a connection is ejected or a dial is given up, the process itself is checked.
const (
	// If a timer is late by stalled, or the wall clock is ahead of the monotonic one by
	// as much, the process did not run. That it heard nothing in that time proves
	// nothing, and it asks again, up to mostStalls times in a row.
	stalled    = 250 * time.Millisecond
	mostStalls = 10

	// An exchange with a server takes some steps in this process, each of them on a
	// goroutine that has to be woken: the writer, the reader, the caller, those of a
	// handshake.
	exchangeSteps = 12
	calm          = time.Millisecond
)

// letOthersRun has every goroutine that could run get its turn, for as many times as an
// exchange has steps. It takes no time in a process that has CPU to spare, and seconds
// in one where hundreds of goroutines compute; what came from the server until it was
// called has been seen when it returns. It reports whether all were served at once.
func letOthersRun(ctx context.Context) (atOnce bool) {
	begun := time.Now()
	for range exchangeSteps {
		if ctx.Err() != nil {
			break
		}
		runtime.Gosched() // to the end of the queue
	}
	return time.Since(begun) < calm
}

// processStalled reports whether the process did not run for a while between begun and now,
// though it wanted to wait for d at most.
func processStalled(begun time.Time, d time.Duration) bool {
	now := time.Now()
	took := now.Sub(begun)
	return took > d+stalled || now.Round(0).Sub(begun.Round(0))-took > stalled // Round strips the monotonic clock
}

// fitToJudgeDials reports whether this process has run well enough to give up dials whose
// time is over. If it has not, it looks at them again later.
func (s *subchannel) fitToJudgeDials() bool {
	over, late := false, false
	s.update(func(*effects) {
		now := time.Now()
		for c := range s.all {
			if c.phase == phaseDialling {
				at := s.decisionLocked(c)
				over = over || !at.IsZero() && !at.After(now)
			}
		}
		late = over && s.superviseTick.late > stalled && !s.closed
		s.superviseTick.late = 0
		if late {
			s.superviseTick.stop()
			s.armLocked(&s.superviseTick, leastPatience, s.superviseDials)
		}
	})
	if over && !late {
		letOthersRun(s.policy.ctx)
	}
	return !late
}
