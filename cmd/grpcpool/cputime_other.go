//go:build !unix

package main

import "time"

// cpuTime is not known on this system.
func cpuTime() (used time.Duration, known bool) { return 0, false }
