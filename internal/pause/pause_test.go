package pause_test

import (
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool/internal/pause"
)

// bounds are the shortest and the longest of many pauses.
func bounds(f func() time.Duration) (shortest, longest time.Duration) {
	shortest = f()
	for range 2000 {
		d := f()
		shortest, longest = min(shortest, d), max(longest, d)
	}
	return shortest, longest
}

func TestAPauseAfterARefusedDialGrowsWithTheOutage(t *testing.T) {
	for outage, most := range map[time.Duration]time.Duration{
		0:                      50 * time.Millisecond,
		100 * time.Millisecond: 50 * time.Millisecond,
		time.Second:            500 * time.Millisecond,
		30 * time.Second:       900 * time.Millisecond,
		10 * time.Minute:       900 * time.Millisecond,
	} {
		shortest, longest := bounds(func() time.Duration { return pause.Refused(outage) })
		if shortest < most/2 || shortest > most*6/10 || longest > most || longest < most*9/10 {
			t.Errorf("after %v: %v to %v, want %v to %v", outage, shortest, longest, most/2, most)
		}
	}
}

func TestAPauseAfterAFailureThatReachedTheServerDoubles(t *testing.T) {
	for n, most := range map[int]time.Duration{
		0: 100 * time.Millisecond, 1: 100 * time.Millisecond, 2: 750 * time.Millisecond, 5: 6 * time.Second,
		6: 10 * time.Second, 1000: 10 * time.Second,
	} {
		shortest, longest := bounds(func() time.Duration { return pause.Costly(n) })
		if least := most * 2 / 3; shortest < least || shortest > least*11/10 || longest > most || longest < most*9/10 {
			t.Errorf("after %d: %v to %v, want %v to %v", n, shortest, longest, least, most)
		}
	}
}

// Row 11 of the fault matrix: the second dial follows at once, and each further one after
// a pause.
func TestFiveDialsInARowTakeThreeSecondsOrMore(t *testing.T) {
	shortest, _ := bounds(func() time.Duration {
		return pause.Costly(1) + pause.Costly(2) + pause.Costly(3) + pause.Costly(4)
	})
	if shortest < 3*time.Second {
		t.Errorf("the sixth dial may follow %v after the first, want 3s or more", shortest)
	}
}
