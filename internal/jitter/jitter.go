// Package jitter spreads out in time what many clients would otherwise do at once:
//
//	time.Sleep(pause/2 + jitter.UpTo(pause/2))
//
// Its numbers need not be secret. A test calls [Seed] to get the same ones again.
package jitter

import (
	"math/rand/v2"
	"sync"
	"time"
)

// seeded is the source that Seed has set.
var seeded struct {
	mu  sync.Mutex // guards rng
	rng *rand.Rand // nil: math/rand/v2's own, which is random
}

// Seed makes the numbers of the whole process begin anew at those of seed, until restore is
// called. It is for tests: goroutines that take numbers at the same time get them in any
// order.
func Seed(seed uint64) (restore func()) {
	seeded.mu.Lock()
	defer seeded.mu.Unlock()
	before := seeded.rng
	seeded.rng = rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // see the package's comment
	return func() {
		seeded.mu.Lock()
		defer seeded.mu.Unlock()
		seeded.rng = before
	}
}

// UpTo returns a random part of d, which is at least 0 and less than d. If d is not
// positive, it returns 0.
func UpTo(d time.Duration) time.Duration {
	return time.Duration(fraction() * float64(max(d, 0)))
}

// Between returns a random duration of at least least and less than most.
func Between(least, most time.Duration) time.Duration {
	return least + UpTo(most-least)
}

// Share returns a random number of at least least and less than least+spread.
func Share(least, spread float64) float64 { return least + spread*fraction() }

// fraction is at least 0 and less than 1.
func fraction() float64 {
	seeded.mu.Lock()
	defer seeded.mu.Unlock()
	if seeded.rng != nil {
		return seeded.rng.Float64()
	}
	return rand.Float64() //nolint:gosec // see the package's comment
}
