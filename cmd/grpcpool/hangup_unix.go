//go:build unix

package main

import (
	"os"
	"syscall"
)

// hangup are the signals at which the proxy reloads.
var hangup = []os.Signal{syscall.SIGHUP}
