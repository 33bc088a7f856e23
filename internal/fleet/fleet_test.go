package fleet_test

import (
	"testing"
	"time"
)

func TestTry(t *testing.T) {
	for _, o := range []time.Duration{0, 50 * time.Millisecond, 200 * time.Millisecond, time.Second, 30 * time.Second} {
		for _, k := range []kind{ours, plain, pooled} {
			start := time.Now()
			m := storm(t, k, 300, 30, 245, o, refuses)
			t.Logf("%v %s missing %d: %v %v %v spent %d wasted %d dials %.1f %d peak %d; took %v", o, k.name, m.missing, m.quantile(.5), m.quantile(.99), m.quantile(1), m.spent, m.wasted(), m.meanDials(), m.mostDials(), m.peak, time.Since(start))
		}
	}
}
