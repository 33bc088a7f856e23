package tap

import (
	"math"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// limitUserTimeout sets TCP_USER_TIMEOUT, in milliseconds (tcp(7)).
func limitUserTimeout(conn net.Conn, d time.Duration) {
	control(conn, func(fd int) {
		now, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		if want := int(min(d.Milliseconds(), math.MaxInt32)); err == nil && (now == 0 || now > want) {
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, want) // probes find a dead connection without it
		}
	})
}

// keptAliveAfter is how long conn may be without data before the kernel asks whether the
// peer is there; the longest time if it does not.
func keptAliveAfter(conn *net.TCPConn) (idle time.Duration) {
	idle = math.MaxInt64
	control(conn, func(fd int) {
		on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
		if err != nil || on == 0 {
			return
		}
		if seconds, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE); err == nil {
			idle = time.Duration(seconds) * time.Second
		}
	})
	return idle
}

// progress reads TCP_INFO and the length of the send queue (tcp(7)).
func progress(conn net.Conn) (p Progress, ok bool) {
	control(conn, func(fd int) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		left, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		if err != nil || left < 0 {
			return
		}
		p, ok = Progress{
			Acked:     info.Bytes_acked,
			Left:      uint64(left),
			LastAck:   time.Duration(info.Last_ack_recv) * time.Millisecond,
			Resent:    uint64(info.Total_retrans),
			RoundTrip: time.Duration(info.Rtt) * time.Microsecond,
		}, true
	})
	return p, ok
}

// unread reads the length of the receive queue (tcp(7), unix(7)).
func unread(conn net.Conn) (n int, ok bool) {
	control(conn, func(fd int) {
		var err error
		n, err = unix.IoctlGetInt(fd, unix.SIOCINQ)
		ok = err == nil
	})
	return n, ok
}

// control runs f with the file descriptor of a socket. It accepts two types only, because
// a wrapper of a socket may offer its descriptor too and buffer bytes of its own.
func control(conn net.Conn, f func(fd int)) {
	var sys syscall.Conn
	switch c := conn.(type) {
	case *net.TCPConn:
		sys = c
	case *net.UnixConn:
		sys = c
	default:
		return
	}
	raw, err := sys.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { f(int(fd)) })
}
