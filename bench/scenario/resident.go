package scenario

import (
	"fmt"
	"os"
	"runtime/debug"
)

// residentBytes is what this process has in memory once the Go runtime has given back what
// it does not use; 0 where /proc does not tell.
func residentBytes() float64 {
	debug.FreeOSMemory()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, resident float64
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		return 0
	}
	return resident * float64(os.Getpagesize())
}
