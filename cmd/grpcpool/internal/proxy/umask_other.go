//go:build !unix

package proxy

import "io/fs"

func umask(fs.FileMode) (restore func()) { return func() {} }
