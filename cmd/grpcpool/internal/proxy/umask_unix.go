//go:build unix

package proxy

import (
	"io/fs"
	"syscall"
)

// umask sets the process's mask for the modes of new files until restore.
func umask(mask fs.FileMode) (restore func()) {
	old := syscall.Umask(int(mask.Perm()))
	return func() { syscall.Umask(old) }
}
