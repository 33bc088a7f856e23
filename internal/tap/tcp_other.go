//go:build !linux

package tap

import (
	"math"
	"net"
	"time"
)

func keptAliveAfter(*net.TCPConn) time.Duration { return math.MaxInt64 }

func limitUserTimeout(net.Conn, time.Duration) {}

func progress(net.Conn) (Progress, bool) { return Progress{}, false }

func unread(net.Conn) (int, bool) { return 0, false }
