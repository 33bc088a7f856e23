package main

import (
	"os"
	"runtime"
	"sync"
	"time"
)

// A proxy works on few cores and on a small heap, and both need telling to Go.
//
// Go wakes another thread whenever a goroutine becomes ready and a core is free. A
// call passes through a handful of goroutines, one after the other, so that the thread
// that was woken finds nothing left to do: that costs more than the call itself. With
// one core there is nobody to wake. So the proxy begins with one, and takes more when
// its work needs them.
//
// And Go collects garbage whenever the heap has doubled. With next to nothing on it
// that would be at every couple of hundred calls.

const (
	corePeriod = 250 * time.Millisecond

	// moreCores is how busy the cores must have been for one period to double them.
	moreCores = 0.8
	// fewerCores is how busy half of the cores would have been, at the most, for
	// calmPeriods in a row, to halve them.
	fewerCores  = 0.6
	calmPeriods = 8

	// ballast is memory that is never touched, and so takes none. It counts for
	// when the heap has doubled: with it garbage is collected every 8 MB or so. With
	// more, what is allocated next has left the processor's caches, which costs more
	// than the collections that it saves.
	ballast = 6 << 20
)

// frugal makes the process work so until stop. What the environment says of these
// settings (GOMAXPROCS, GOGC) stays as it is.
func frugal() (stop func()) {
	var undo []func()
	if _, set := os.LookupEnv("GOGC"); !set {
		undo = append(undo, holdBallast())
	}
	if _, set := os.LookupEnv("GOMAXPROCS"); !set {
		undo = append(undo, followLoad())
	}
	return func() {
		for _, f := range undo {
			f()
		}
	}
}

func holdBallast() (stop func()) {
	b := make([]byte, ballast)
	return func() { runtime.KeepAlive(b) }
}

// followLoad takes as many cores as the process is busy with, until stop.
func followLoad() (stop func()) {
	most := runtime.GOMAXPROCS(0)
	if _, known := cpuTime(); !known || most == 1 {
		return func() {}
	}
	end := make(chan struct{})
	var ended sync.WaitGroup
	runtime.GOMAXPROCS(1)
	ended.Go(func() {
		defer runtime.SetDefaultGOMAXPROCS()
		c := cores{most: most, inUse: 1}
		tick := time.NewTicker(corePeriod)
		defer tick.Stop()
		at := time.Now()
		used, _ := cpuTime()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
			}
			nowAt := time.Now()
			nowUsed, _ := cpuTime()
			if c.adjust((nowUsed - used).Seconds() / nowAt.Sub(at).Seconds()) {
				runtime.GOMAXPROCS(c.inUse)
			}
			at, used = nowAt, nowUsed
		}
	})
	return func() {
		close(end)
		ended.Wait()
	}
}

// cores decides how many cores to use.
type cores struct {
	most, inUse int
	calm        int // periods in a row in which half would have done
}

// adjust is told how many cores' time was used in a period, and reports whether inUse
// has changed.
func (c *cores) adjust(busy float64) bool {
	if busy > moreCores*float64(c.inUse) {
		c.calm = 0
		before := c.inUse
		c.inUse = min(2*c.inUse, c.most)
		return c.inUse != before
	}
	half := (c.inUse + 1) / 2
	if half == c.inUse || busy > fewerCores*float64(half) {
		c.calm = 0
		return false
	}
	if c.calm++; c.calm < calmPeriods {
		return false
	}
	c.calm, c.inUse = 0, half
	return true
}
