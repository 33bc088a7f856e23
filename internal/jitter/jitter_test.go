package jitter_test

import (
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool/internal/jitter"
)

func TestNumbersStayInTheirRange(t *testing.T) {
	for range 1000 {
		if d := jitter.UpTo(time.Second); d < 0 || d >= time.Second {
			t.Fatalf("UpTo(1s) is %v", d)
		}
		if d := jitter.Between(time.Second, 2*time.Second); d < time.Second || d >= 2*time.Second {
			t.Fatalf("Between(1s, 2s) is %v", d)
		}
		if f := jitter.Share(0.7, 0.2); f < 0.7 || f >= 0.9 {
			t.Fatalf("Share(0.7, 0.2) is %v", f)
		}
	}
	for _, d := range []time.Duration{0, -time.Second} {
		if got := jitter.UpTo(d); got != 0 {
			t.Errorf("UpTo(%v) is %v, want 0", d, got)
		}
	}
}

func TestASeedRepeatsTheNumbers(t *testing.T) {
	var got [2][10]time.Duration
	for i := range got {
		restore := jitter.Seed(7)
		for j := range got[i] {
			got[i][j] = jitter.UpTo(time.Hour)
		}
		restore()
	}
	if got[0] != got[1] {
		t.Errorf("the same seed gave %v and %v", got[0], got[1])
	}
	if again := jitter.UpTo(time.Hour); again == got[0][0] {
		t.Errorf("the seed still holds after restore: %v", again)
	}
}
