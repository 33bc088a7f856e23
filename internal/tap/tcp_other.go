//go:build !linux

package tap

import (
	"net"
	"time"
)

func limitUserTimeout(net.Conn, time.Duration) {}

func progress(net.Conn) (Progress, bool) { return Progress{}, false }

func unread(net.Conn) (int, bool) { return 0, false }
