//go:build unix

package proxy

import (
	"io/fs"
	"syscall"
)

// umask sets the process's file mode creation mask until restore is called.
func umask(mask fs.FileMode) (restore func()) {
	old := syscall.Umask(int(mask.Perm()))
	return func() { syscall.Umask(old) }
}
