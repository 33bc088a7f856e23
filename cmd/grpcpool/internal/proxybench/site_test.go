//go:build unix

package proxybench_test

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/proxy"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/shared"
)

// asRole is the environment variable that makes this program a server; see run.
const asRole = "GRPCPOOL_BENCH_ROLE"

// roleProxy is the command. Its socket has this name too.
const roleProxy = "proxy"

// site is a server with mutual TLS, and the ways to reach it.
type site struct {
	dir, target string
	processes   []int // in addition to this one
}

type way struct {
	name string
	dial func() (*grpc.ClientConn, error)
}

// ways returns them in a different order each round.
func (s *site) ways() []way {
	socket := func(role string) func() (*grpc.ClientConn, error) {
		return func() (*grpc.ClientConn, error) { return local(filepath.Join(s.dir, role)) }
	}
	all := []way{
		{"direct", func() (*grpc.ClientConn, error) { return direct(s.dir, s.target) }},
		{"relay", func() (*grpc.ClientConn, error) { return relayed(s.dir, s.target) }},
		{"proxy", socket(roleProxy)},
		{"decoding", socket(roleDecoding)},
	}
	k := *round % len(all)
	return append(append([]way(nil), all[k:]...), all[:k]...)
}

// newSite runs each part in a process of its own, as in production.
func newSite(b *testing.B) *site {
	b.Helper()
	s := &site{dir: folder(b)}
	s.target = s.start(b, roleServer)
	s.start(b, roleRelay, s.target)
	s.start(b, roleDecoding, s.target)
	s.startCommand(b, exec.Command(program(b), roleProxy, "--to", s.target, "--listen", "unix://"+filepath.Join(s.dir, roleProxy),
		"--ca", filepath.Join(s.dir, caFile), "--cert", filepath.Join(s.dir, certFile), "--key", filepath.Join(s.dir, keyFile)))
	awaitSocket(b, filepath.Join(s.dir, roleProxy))
	return s
}

// newSiteInOneProcess runs all parts in this process.
func newSiteInOneProcess(b *testing.B) *site {
	b.Helper()
	s := &site{dir: folder(b)}
	s.target = s.serve(b, roleServer)
	s.serve(b, roleRelay, s.target)
	s.serve(b, roleDecoding, s.target)
	p, err := proxy.New(proxy.Config{Upstream: s.pool})
	if err != nil {
		b.Fatal(err)
	}
	l, err := proxy.Listen(b.Context(), "unix", filepath.Join(s.dir, roleProxy), proxy.Access{})
	if err != nil {
		b.Fatal(err)
	}
	go p.Serve(l)
	b.Cleanup(func() { p.Shutdown(context.Background()) })
	return s
}

func (s *site) pool() (*shared.Pool, error) {
	pem := map[string][]byte{}
	for _, name := range []string{caFile, certFile, keyFile} {
		data, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			return nil, err
		}
		pem[name] = data
	}
	factory, err := grpcpool.NewMutualTLSFactory(pem[caFile], pem[certFile], pem[keyFile], s.target,
		30*time.Second, 10*time.Second, nil, grpcpool.WithDialOptions(proxy.DialOptions()...))
	if err != nil {
		return nil, err
	}
	return shared.New(factory, time.Minute), nil
}

// folder creates a directory with the certificates, for the sockets too.
func folder(b *testing.B) string {
	b.Helper()
	certs, err := grpcpooltest.NewCerts()
	if err != nil {
		b.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "bench") //nolint:usetesting // b.TempDir is too long a path for a socket
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	for name, data := range map[string][]byte{
		caFile: certs.CA.PEM, certFile: certs.Client.CertPEM, keyFile: certs.Client.KeyPEM,
		serverCert: certs.Server.CertPEM, serverKey: certs.Server.KeyPEM,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}

// serve serves in a role, in this process, and returns the address.
func (s *site) serve(b *testing.B, role string, args ...string) string {
	b.Helper()
	l, serve, err := prepare(role, append([]string{s.dir}, args...))
	if err != nil {
		b.Fatal(err)
	}
	go serve(l)
	b.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// start makes another process of this program serve in a role, and returns the address.
func (s *site) start(b *testing.B, role string, args ...string) string {
	b.Helper()
	cmd := exec.Command(os.Args[0], append([]string{s.dir}, args...)...)
	cmd.Env = append(os.Environ(), asRole+"="+role)
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	s.startCommand(b, cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatalf("the %s does not listen: %v", role, err)
	}
	return strings.TrimSpace(line)
}

func (s *site) startCommand(b *testing.B, cmd *exec.Cmd) {
	b.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	cmd.Stderr = b.Output()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	s.processes = append(s.processes, cmd.Process.Pid)
	b.Cleanup(func() {
		stdin.Close()                        // ends a role of this program
		_ = cmd.Process.Signal(os.Interrupt) // ends the command
		_ = cmd.Wait()                       // the error depends on which of the two it was
	})
}

func awaitSocket(b *testing.B, path string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.Fatalf("the proxy does not listen: %v", err)
		}
	}
}

// used returns the CPU time of all processes together.
func (s *site) used(b *testing.B) time.Duration {
	b.Helper()
	sum := time.Duration(0)
	for _, pid := range append([]int{os.Getpid()}, s.processes...) {
		var t unix.Timespec
		// The clock of a process's CPU time is named so, see clock_getcpuclockid(3).
		if err := unix.ClockGettime(int32(^pid<<3|2), &t); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(t.Nano())
	}
	return sum
}
