package tap

import (
	"math"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// limitUserTimeout sets TCP_USER_TIMEOUT, in milliseconds (tcp(7)).
func limitUserTimeout(conn net.Conn, d time.Duration) {
	control(conn, func(fd int) {
		now, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		if want := int(min(d.Milliseconds(), math.MaxInt32)); err == nil && (now == 0 || now > want) {
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, want) // probes do without it
		}
	})
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
			Resent:    uint64(info.Total_retrans),
			RoundTrip: time.Duration(info.Rtt) * time.Microsecond,
		}, true
	})
	return p, ok
}

// control runs f with the file descriptor of a TCP connection.
func control(conn net.Conn, f func(fd int)) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { f(int(fd)) })
}
