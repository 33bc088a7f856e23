//go:build unix

package main

import (
	"os"
	"syscall"
)

// hangup lists the signals that make the proxy reload.
var hangup = []os.Signal{syscall.SIGHUP}
