package main

import (
	"os"
	"runtime"
	"sync"
	"time"
)

// A proxy runs best on few cores, and its heap is small. Go's defaults suit neither.
//
// Go wakes another thread whenever a goroutine becomes ready and a core is free. A call
// passes through a handful of goroutines, one after the other, so the thread finds
// nothing left to do; waking it costs more than the call itself. With one core there is
// no thread to wake. So the proxy starts with one core, and takes more under load.
//
// Go collects garbage whenever the heap has doubled. With an almost empty heap that would
// be every couple of hundred calls.

const (
	corePeriod = 250 * time.Millisecond

	// moreCores is the load of the cores above which their number is doubled.
	moreCores = 0.8
	// fewerCores is the load that half of the cores would have had, below which their
	// number is halved after calmPeriods in a row.
	fewerCores  = 0.6
	calmPeriods = 8

	// ballast is the size of an allocation that is never touched, and so uses no memory.
	// It counts as heap: with it, garbage is collected every 8 MB or so. A larger one
	// would save collections, but new objects would miss the processor's caches, which
	// costs more.
	ballast = 6 << 20
)

// frugal adapts the process to that until stop. It leaves alone what the environment
// sets (GOMAXPROCS, GOGC).
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

// followLoad adapts the number of cores to the load, until stop.
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
	calm        int // periods in a row in which half of them would have been enough
}

// adjust adapts inUse to a period in which busy cores' time was used, and reports
// whether it has changed.
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
