//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// process is a running command.
type process struct {
	*exec.Cmd

	mu   sync.Mutex // guards text
	text bytes.Buffer
	said chan string // lines of stderr
}

// begin starts the command, and ends it with the test.
func begin(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(os.Args[0], args...), said: make(chan string, 1000)}
	p.Env = append(append(os.Environ(), asCommand+"=1"), env...)
	stderr, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.said)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			p.mu.Lock()
			fmt.Fprintln(&p.text, lines.Text())
			p.mu.Unlock()
			p.said <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		if p.ProcessState == nil {
			p.Process.Kill()
			p.Wait()
		}
		if t.Failed() {
			p.mu.Lock()
			defer p.mu.Unlock()
			t.Logf("the command said:\n%s", p.text.String())
		}
	})
	return p
}

// await waits for a line on stderr with a text in it.
func (p *process) await(t *testing.T, text string) string {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		select {
		case line, ok := <-p.said:
			if !ok {
				t.Fatalf("it ended without logging %q", text)
			}
			if strings.Contains(line, text) {
				return line
			}
		case <-timeout:
			t.Fatalf("it did not log %q", text)
		}
	}
}

func (p *process) end(t *testing.T) {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for range p.said { // Wait would close the pipe
	}
	if err := p.Wait(); err != nil {
		t.Errorf("after SIGTERM it ended with %v", err)
	}
}

func (s *site) proxy(t *testing.T, more ...string) *process {
	t.Helper()
	p := begin(t, nil, append(append([]string{"proxy", "--to", s.Addr()}, s.flags()...), more...)...)
	return p
}

func echo(ctx context.Context, target string) error {
	cc, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	_, err = testpb.NewBenchmarkServiceClient(cc).UnaryCall(ctx, &testpb.SimpleRequest{Payload: &testpb.Payload{Body: []byte("x")}})
	return err
}

func TestTheProxySharesOneConnectionAndEndsWhenTold(t *testing.T) {
	s := newSite(t)
	p := s.proxy(t, "--listen", "unix://"+s.path("p.sock"))
	p.await(t, "listening")
	for range 5 { // five short-lived programs
		if err := echo(t.Context(), "unix:"+s.path("p.sock")); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.Counts().Opened; n != 1 {
		t.Errorf("the server saw %d connections, want 1", n)
	}
	p.end(t)
	if _, err := os.Lstat(s.path("p.sock")); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestTheProxyReadsCertificatesAndTokenAnewAtSIGHUP(t *testing.T) {
	s := newSite(t)
	s.write(t, "token", []byte("0123456789-old-token\n"))
	p := s.proxy(t, "--listen", "127.0.0.1:0", "--token-file", s.path("token"))
	line := p.await(t, "listening")
	_, address, _ := strings.Cut(line, "address=")
	address, _, _ = strings.Cut(address, " ")
	with := func(token string) error {
		return echo(metadata.AppendToOutgoingContext(t.Context(), "proxy-authorization", "Bearer "+token), address)
	}
	if err := with("0123456789-old-token"); err != nil {
		t.Fatal(err)
	}
	fresh, err := s.certs.CA.Issue(grpcpooltest.CertRequest{CommonName: "fresh"})
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "token", []byte("0123456789-new-token"))
	s.write(t, "cert.pem", fresh.CertPEM)
	p.Process.Signal(syscall.SIGHUP) // the key does not match the certificate yet
	p.await(t, "reload failed")
	if err := with("0123456789-old-token"); err != nil {
		t.Errorf("after a reload that failed: %v", err)
	}
	s.write(t, "key.pem", fresh.KeyPEM)
	p.Process.Signal(syscall.SIGHUP)
	p.await(t, "msg=reloaded")
	if err := with("0123456789-old-token"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("with the old token: %v", err)
	}
	if err := with("0123456789-new-token"); err != nil {
		t.Errorf("with the new token: %v", err)
	}
	if n := s.Counts().Opened; n != 2 {
		t.Errorf("the server saw %d connections, want one for each certificate", n)
	}
	p.end(t)
}

func TestTheProxyListensWithMutualTLS(t *testing.T) {
	s := newSite(t)
	s.write(t, "listen-cert.pem", s.certs.Server.CertPEM)
	s.write(t, "listen-key.pem", s.certs.Server.KeyPEM)
	p := s.proxy(t, "--listen", "0.0.0.0:0", "--listen-cert", s.path("listen-cert.pem"),
		"--listen-key", s.path("listen-key.pem"), "--listen-ca", s.path("ca.pem"))
	_, address, _ := strings.Cut(p.await(t, "listening"), "address=")
	address, _, _ = strings.Cut(address, " ")
	_, port, err := net.SplitHostPort(strings.Trim(address, `"`))
	if err != nil {
		t.Fatal(err)
	}
	at := "localhost:" + port
	if got := runLine(t.Context(), append([]string{"ping", "--count", "1", at}, s.flags()...)...); got.status != exitOK {
		t.Errorf("with a certificate: %d %s", got.status, got.stdout)
	}
	for _, args := range [][]string{{"--ca", s.path("ca.pem")}, {"--plaintext"}} {
		got := runLine(t.Context(), append([]string{"ping", "--count", "1", at}, args...)...)
		if got.status != exitFailed || !strings.Contains(got.stdout, "0 answered") {
			t.Errorf("with %q: %d %s", args, got.status, got.stdout)
		}
	}
	p.end(t)
}

func TestTheLivePageTellsThisMachine(t *testing.T) {
	s := newSite(t)
	p := s.proxy(t, "--listen", "unix://"+s.path("p.sock"), "--live", "127.0.0.1:0")
	_, url, _ := strings.Cut(p.await(t, "live page"), "url=")
	p.await(t, "listening")
	if err := echo(t.Context(), "unix:"+s.path("p.sock")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"": "<html", "?format=json": `"proxy"`, "stats": `"ended":{"OK":1}`, "metrics": `grpcpool_proxy_calls_total{code="OK"} 1`,
	} {
		if code, body := read(t, url+path, ""); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d, no %q in %s", path, code, want, body)
		}
		if code, body := read(t, url+path, "evil.example"); code != http.StatusForbidden {
			t.Errorf("%s requested by another host name: %d %s", path, code, body)
		}
	}
	p.end(t)
}

func read(t *testing.T, url, host string) (code int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = host
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(data)
}

func TestTheProxyTakesSystemdsSocketsAndTellsIt(t *testing.T) {
	s := newSite(t)
	notified, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path("notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notified.Close()
	notified.SetReadDeadline(time.Now().Add(30 * time.Second))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.path("p.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// LISTEN_PID must be the process ID, which the shell knows.
	args := append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, os.Args[0], "proxy", "--listen", "systemd", "--to", s.Addr()}, s.flags()...)
	cmd := exec.Command("/bin/sh", args...)
	cmd.Env = append(os.Environ(), asCommand+"=1", "LISTEN_FDS=1", "NOTIFY_SOCKET="+s.path("notify"))
	cmd.ExtraFiles = []*os.File{file}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hears := func(want string) {
		t.Helper()
		buf := make([]byte, 1000)
		n, err := notified.Read(buf)
		if err != nil || !strings.Contains(string(buf[:n]), want) {
			t.Errorf("systemd received %q, %v, want %q", buf[:n], err, want)
		}
	}
	hears("READY=1")
	if err := echo(t.Context(), "unix:"+s.path("p.sock")); err != nil {
		t.Error(err)
	}
	cmd.Process.Signal(syscall.SIGHUP)
	hears("RELOADING=1")
	hears("READY=1")
	cmd.Process.Signal(syscall.SIGTERM)
	hears("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v: %s", err, stderr.String())
	}
}

func TestWhatTheProxyCannotDoIsSaidAtTheStart(t *testing.T) {
	s := newSite(t)
	s.write(t, "empty", nil)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--listen", "127.0.0.1:0"}, "a TCP --listen address needs --token-file"},
		{[]string{"--listen", "127.0.0.1:0", "--token-file", s.path("none")}, "--token-file: open"},
		{[]string{"--listen", "127.0.0.1:0", "--token-file", s.path("empty")}, "is empty"},
		{[]string{"--listen", "unix://" + s.path("none/p.sock")}, "no such file"},
		{[]string{"--listen", "systemd"}, "systemd passed no sockets"},
		{[]string{"--listen", "unix://" + s.path("p.sock"), "--cert", s.path("ca.pem")}, "cannot be used with certFile"},
		{[]string{"--listen", "unix://" + s.path("p.sock"), "--to", "a b/x:1"}, `serverAddress "a b/x:1"`},
	} {
		p := s.proxy(t, tt.args...)
		p.await(t, tt.want)
		for range p.said {
		}
		p.Wait()
		if code := p.ProcessState.ExitCode(); code != exitFailed {
			t.Errorf("%q: exit status %d, want 1", tt.args, code)
		}
	}
}

func TestProxyMisuse(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "--to is required"},
		{[]string{"--to", "x:1"}, "--listen is required"},
		{[]string{"--to", "x:1", "--listen", "/x"}, `"/x": it must be unix:///path or host:port`},
		{[]string{"--to", "x:1", "--listen", "unix:x", "more"}, `unexpected argument "more"`},
		{[]string{"--to", "x:1", "--listen", "unix:x", "--cert", "c"}, "--cert and --key must be given together"},
		{[]string{"--to", "x:1", "--listen", "unix:x", "--cert", "c", "--key", "k"}, "--cert requires --ca"},
		{[]string{"--to", "x:1", "--listen", "unix:x", "--plaintext", "--ca", "c"}, "--plaintext cannot be combined"},
		{[]string{"--to", "x:1", "--listen", "unix:x", "--socket-mode", "9"}, "must be an octal mode"},
		{[]string{"--to", "x:1", "--listen", "unix:x", "--allow-uid", "root"}, "must be a numeric user ID"},
		{[]string{"--to", "x:1", "--listen", "unix:x", "--max-streams", "0"}, "--max-streams is 0; it must be from 1 to"},
		{[]string{"--to", "x:1", "--listen", "unix:x", "--listen-cert", "c"}, "must be given together"},
		{[]string{"--to", "x:1", "--listen", "unix:x", "--live", "0.0.0.0:1"}, "must be a loopback address"},
		{[]string{"--to", "x:1", "--listen", "unix:x", "--drain", "-1s"}, "--drain is -1s"},
	} {
		got := runLine(t.Context(), append([]string{"proxy"}, tt.args...)...)
		if got.status != exitMisuse || got.stdout != "" || !strings.Contains(got.stderr, tt.want) {
			t.Errorf("%q: status %d, stdout %q, stderr %q; want 2, nothing and %q", tt.args, got.status, got.stdout, got.stderr, tt.want)
		}
	}
	got := runLine(t.Context(), "proxy", "--help")
	for _, want := range []string{"--listen <address>", "--to <server>", "Who may connect:", "Exit status:", "Signals:"} {
		if got.status != exitOK || !strings.Contains(got.stdout, want) {
			t.Errorf("--help: status %d, no %q in %s", got.status, want, got.stdout)
		}
	}
}
