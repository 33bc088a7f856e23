// Package cpu tells how much CPU time this process has used: what benchmarks compare
// where the wall's clock would also count what others do on the machine.
package cpu

import (
	"syscall"
	"time"
)

// Time is the user and system time that this process has used, garbage collection
// included.
func Time() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // only for arguments that are wrong
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
