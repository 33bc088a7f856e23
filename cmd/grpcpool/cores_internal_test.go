package main

import (
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCoresFollowTheLoad(t *testing.T) {
	calm := func(busy float64) []float64 { return slices.Repeat([]float64{busy}, calmPeriods) }
	for _, c := range []struct {
		name  string
		most  int
		busy  []float64
		inUse []int // at each change
	}{
		{"nothing to do", 8, calm(0), nil},
		{"one core is enough", 8, calm(0.75), nil},
		{"a burst doubles them until they are enough", 8, []float64{0.95, 1.9, 2.5, 2.5}, []int{2, 4}},
		{"there are no more than there are", 6, []float64{1, 2, 4, 6, 6}, []int{2, 4, 6}},
		{"calm gives half of them back", 8, append([]float64{1, 2}, append(calm(0.7), calm(0.5)...)...), []int{2, 4, 2, 1}},
		{"a busy moment begins the calm anew", 8, append([]float64{1, 0.1, 0.1, 0.1, 0.7}, calm(0.1)[1:]...), []int{2}},
		{"an odd number is halved upwards", 3, append([]float64{1, 2}, calm(0)...), []int{2, 3, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := cores{most: c.most, inUse: 1}
			var got []int
			for _, busy := range c.busy {
				before := k.inUse
				if changed := k.adjust(busy); changed != (before != k.inUse) {
					t.Errorf("adjust(%v) = %v, from %d to %d", busy, changed, before, k.inUse)
				}
				if k.inUse != before {
					got = append(got, k.inUse)
				}
			}
			if diff := cmp.Diff(c.inUse, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAFrugalProcessHasAllItsCoresAgainAfterwards(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	stop := frugal()
	stop()
	if after := runtime.GOMAXPROCS(0); after != before {
		t.Errorf("GOMAXPROCS is %d, and was %d", after, before)
	}
}

func TestWhatTheEnvironmentSaysOfCoresStays(t *testing.T) {
	t.Setenv("GOMAXPROCS", "7")
	before := runtime.GOMAXPROCS(0)
	stop := frugal()
	defer stop()
	if during := runtime.GOMAXPROCS(0); during != before {
		t.Errorf("GOMAXPROCS is %d, and was %d", during, before)
	}
}

func TestTheProcessKnowsItsCPUTime(t *testing.T) {
	before, known := cpuTime()
	if !known {
		t.Skip("not on ", runtime.GOOS)
	}
	for n := 0; ; n++ {
		if after, _ := cpuTime(); after > before {
			return
		}
	}
}
