package proxy

import (
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/davidwartell/go-grpcpool/internal/ready"
)

// gRPC holds a buffer of 32 KiB for each connection without ReadOnReady.
func TestACountedConnectionIsStillReadOnReady(t *testing.T) {
	l, err := Listen(t.Context(), "unix", filepath.Join(t.TempDir(), "s"), Access{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	counted := countedListener{l, &clients{most: 1, logger: slog.New(slog.DiscardHandler)}}
	conn, err := counted.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := conn.(ready.Reader); ok != (runtime.GOOS == "linux") {
		t.Errorf("ReadOnReady offered: %v, on %s", ok, runtime.GOOS)
	}
	for range 2 { // the second Close does nothing
		conn.Close()
		if n := counted.clients.open.Load(); n != 0 {
			t.Errorf("%d are open", n)
		}
	}
}
