//go:build unix

package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// connectProxy starts an HTTP proxy that supports CONNECT. It always connects to the same
// address, and sends the requested one to a channel.
func connectProxy(t *testing.T, to string) (address string, asked <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hosts := make(chan string, 100)
	var running sync.WaitGroup
	serve := func(c net.Conn) {
		defer c.Close()
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil || req.Method != http.MethodConnect {
			return
		}
		hosts <- req.Host
		up, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer up.Close()
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		running.Go(func() {
			io.Copy(c, up)
			c.Close()
		})
		io.Copy(up, r)
	}
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); running.Wait() })
	return l.Addr().String(), hosts
}

// The report says that the HTTP proxy failed, not the server.
func TestPingNamesTheProxyThatFails(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	refuses, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = http.Serve(refuses, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html>a page</html>", http.StatusProxyAuthRequired)
		}))
	}()
	t.Cleanup(func() { refuses.Close(); <-served })
	for proxy, want := range map[string]string{
		closed.Addr().String():  "connection refused",
		refuses.Addr().String(): "HTTP/1.1 407 Proxy Authentication Required); check HTTPS_PROXY and NO_PROXY",
	} {
		cmd := exec.Command(os.Args[0], "ping", "--plaintext", "--count", "1", "svc.internal.test:443")
		cmd.Env = append(os.Environ(), asCommand+"=1", "HTTPS_PROXY=http://"+proxy, "NO_PROXY=")
		out, err := cmd.CombinedOutput()
		text := string(out)
		if err == nil || !strings.Contains(text, proxy+" (HTTPS_PROXY); check it, or name the host in NO_PROXY") || !strings.Contains(text, want) || strings.Contains(text, "<html>") {
			t.Errorf("%v\n%s", err, text)
		}
	}
}

// A process reads these variables once, so the command runs in a process of its own.
func TestPingTakesTheProxyOfTheEnvironment(t *testing.T) {
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer())
	proxy, asked := connectProxy(t, listening(t, server))
	for _, target := range []string{"svc.internal.test:443", "dns:///svc.internal.test", "passthrough:///svc.internal.test:443"} {
		cmd := exec.Command(os.Args[0], "ping", "--plaintext", "--count", "1", target)
		cmd.Env = append(os.Environ(), asCommand+"=1", "HTTPS_PROXY=http://"+proxy, "NO_PROXY=")
		out, err := cmd.CombinedOutput()
		text := string(out)
		if err != nil || strings.Contains(text, "problem") || !strings.Contains(text, "the server sets no limit") ||
			!strings.Contains(text, "via the proxy "+proxy+" (HTTPS_PROXY)") || !strings.Contains(text, "1 answered") {
			t.Errorf("%s: %v\n%s", target, err, text)
		}
		if len(asked) != 2 { // by the inspection and by the pool
			t.Errorf("%s: the proxy was asked %d times", target, len(asked))
		}
		for len(asked) > 0 {
			if host := <-asked; host != "svc.internal.test:443" {
				t.Errorf("%s: the proxy was asked for %s", target, host)
			}
		}
	}
}
