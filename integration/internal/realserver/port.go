package realserver

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Ports are taken from below the range that kernels give to outgoing connections
// (Linux: from 32768). From within it a server that restarts might find its port
// taken, and a client that dials a port without a server might connect to itself.
const (
	firstPort = 12_000
	lastPort  = 32_000
)

// FreeAddr returns "127.0.0.1:port" with a port that was free just now and will
// hardly be taken by anybody who does not ask for it by number.
func FreeAddr(tb testing.TB) string {
	tb.Helper()
	var last error
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", firstPort+rand.N(lastPort-firstPort)) //nolint:gosec // not a secret
		l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", addr)
		if err == nil {
			_ = l.Close()
			return addr
		}
		last = err
	}
	tb.Fatalf("realserver: no free port between %d and %d: %v", firstPort, lastPort, last)
	return ""
}
