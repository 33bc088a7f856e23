//go:build unix

package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/reflection"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// soon bounds every wait for something that takes milliseconds. It is long so
// that a loaded machine does not fail a test.
const soon = 20 * time.Second

// command is the path of the command, built for these tests.
var command string

// asClient is the environment variable that makes this test's program a client; see
// client_test.go.
const asClient = "GRPCPOOL_TEST_CLIENT"

func TestMain(m *testing.M) {
	if mode := os.Getenv(asClient); mode != "" {
		os.Exit(runClient(mode, os.Args[1]))
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "grpcpool")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	command = filepath.Join(dir, "grpcpool")
	build := exec.Command("go", "build", "-o", command, "./cmd/grpcpool")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the command: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// running is the proxy's process.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	socket string
	log    lockedBuffer
	ended  chan error
}

// startProxy starts the proxy in front of a server with mutual TLS. When the test
// ends so does it, cleanly.
func startProxy(t *testing.T, certs *grpcpooltest.Certs, target string, more ...string) *running {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string][]byte{"ca.pem": certs.CA.PEM, "cert.pem": certs.Client.CertPEM, "key.pem": certs.Client.KeyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := &running{t: t, socket: filepath.Join(dir, "p.sock"), ended: make(chan error, 1)}
	r.cmd = exec.Command(command, append([]string{
		"proxy", "--to", target, "--listen", "unix://" + r.socket, "--verbose", "--drain", "5s",
		"--ca", filepath.Join(dir, "ca.pem"), "--cert", filepath.Join(dir, "cert.pem"), "--key", filepath.Join(dir, "key.pem"),
	}, more...)...)
	r.cmd.Stderr = &r.log
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { r.ended <- r.cmd.Wait() }()
	t.Cleanup(r.end)
	eventually(t, "the proxy listens", func() bool {
		conn, err := net.Dial("unix", r.socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return r
}

func (r *running) end() {
	r.t.Helper()
	r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-r.ended:
		if err != nil {
			r.t.Errorf("the proxy ended with %v", err)
		}
	case <-time.After(soon):
		r.t.Error("the proxy does not end")
		r.cmd.Process.Kill()
		<-r.ended
	}
	if r.t.Failed() {
		r.t.Logf("the proxy said, at the end:\n%s", lastOf(r.log.String(), 8000))
	}
}

func lastOf(s string, n int) string { return s[max(0, len(s)-n):] }

// lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// files is how many file descriptors the proxy has open.
func (r *running) files() int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.cmd.Process.Pid))
	if err != nil {
		r.t.Skip("no /proc here: ", err)
	}
	return len(entries)
}

func (r *running) client(opts ...grpc.DialOption) *grpc.ClientConn {
	r.t.Helper()
	return r.clientAt("unix:"+r.socket, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
}

func (r *running) clientAt(target string, opts ...grpc.DialOption) *grpc.ClientConn {
	r.t.Helper()
	cc, err := grpc.NewClient(target, opts...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { cc.Close() })
	return cc
}

// server is a gRPC server with mutual TLS that counts its connections and streams.
type server struct {
	certs    *grpcpooltest.Certs
	addr     string
	accepted atomic.Int64
	streams  atomic.Int64 // of streaming calls, open now
	stop     func()       // at once; the test's end does it too
}

func startServer(t *testing.T, service testpb.TestServiceServer) *server {
	t.Helper()
	certs, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	return startServerAt(t, "127.0.0.1:0", certs, func(g *grpc.Server) { testpb.RegisterTestServiceServer(g, service) })
}

func startServerAt(t *testing.T, address string, certs *grpcpooltest.Certs, register func(*grpc.Server), opts ...grpc.ServerOption) *server {
	t.Helper()
	config, err := certs.CA.ServerConfig(certs.Server)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{certs: certs, addr: l.Addr().String()}
	g := grpc.NewServer(append(opts,
		grpc.Creds(credentials.NewTLS(config)), grpc.WaitForHandlers(true),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			s.streams.Add(1)
			defer s.streams.Add(-1)
			return h(srv, stream)
		}),
	)...)
	s.stop = g.Stop
	register(g)
	reflection.Register(g)
	served := make(chan error, 1)
	go func() { served <- g.Serve(counting{l, &s.accepted}) }()
	t.Cleanup(func() { g.Stop(); <-served })
	return s
}

type counting struct {
	net.Listener

	n *atomic.Int64
}

func (c counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.n.Add(1)
	}
	return conn, err
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(soon)
	defer deadline.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("after %v still not so: %s", soon, what)
		}
	}
}
