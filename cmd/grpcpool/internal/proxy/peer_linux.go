package proxy

import (
	"fmt"
	"net"
	"syscall"
)

// canCheckUID reports whether this system tells which user connects to a Unix socket.
const canCheckUID = true

// peerUID returns the effective user of the process that connected (unix(7),
// SO_PEERCRED).
func peerUID(conn net.Conn) (uint32, error) {
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("proxy: %T is not a Unix socket", conn)
	}
	raw, err := unix.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("proxy: %w", err)
	}
	var cred *syscall.Ucred
	var optErr error
	if err := raw.Control(func(fd uintptr) {
		cred, optErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return 0, fmt.Errorf("proxy: %w", err)
	}
	if optErr != nil {
		return 0, fmt.Errorf("proxy: SO_PEERCRED: %w", optErr)
	}
	return cred.Uid, nil
}
