package scale_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// connectProxy is an HTTP proxy that knows CONNECT, and one place to connect to.
type connectProxy struct {
	net.Listener

	to       string
	asked    atomic.Pointer[string] // the host of the last CONNECT
	connects atomic.Int64
	wg       sync.WaitGroup
}

func startProxy(tb testing.TB, to string) *connectProxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &connectProxy{Listener: l, to: to}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(c) })
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		p.wg.Wait()
	})
	return p
}

func (p *connectProxy) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	req, err := http.ReadRequest(r)
	if err != nil || req.Method != http.MethodConnect {
		return
	}
	p.asked.Store(&req.Host)
	p.connects.Add(1)
	up, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer up.Close()
	if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	p.wg.Go(func() {
		_, _ = io.Copy(c, up)
		_ = c.Close()
	})
	_, _ = io.Copy(up, r)
}

// HTTPS_PROXY is read once in the life of a process, so the channel lives in one
// of its own.
func TestAChannelScalesThroughAProxy(t *testing.T) {
	if target := os.Getenv("SCALE_TEST_TARGET"); target != "" {
		c := newChannel(t, target, scale.WithMaxConnections(3))
		mustHammer(t, c.stub, 20, 10)
		if got := c.connections(); got != 3 {
			t.Errorf("%d connections, want 3", got)
		}
		return
	}
	for _, target := range []string{"server.test:50051", "dns:///server.test:50051", "passthrough:///server.test:50051"} {
		s := startStrict(t, h2test.WithLimit(2), h2test.WithDelay(2*time.Millisecond))
		proxy := startProxy(t, s.Addr().String())
		cmd := exec.Command(os.Args[0], "-test.run=^TestAChannelScalesThroughAProxy$", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), "HTTPS_PROXY=http://"+proxy.Addr().String(), "NO_PROXY=", "SCALE_TEST_TARGET="+target)
		out, err := cmd.CombinedOutput()
		if errors.Is(err, syscall.ENOEXEC) {
			t.Skip("the system cannot start this program by itself: an emulator runs it")
		}
		if err != nil {
			t.Fatalf("%s: %v\n%s", target, err, out)
		}
		if got := *proxy.asked.Load(); got != "server.test:50051" || proxy.connects.Load() != 3 {
			t.Errorf("%s: the proxy connected %d times, lastly to %s, want 3 times to server.test:50051", target, proxy.connects.Load(), got)
		}
		if got := s.Counts(); got.Violations > 0 || got.Calls != 200 {
			t.Errorf("%s: the server saw %+v", target, got)
		}
	}
}
