//go:build unix

package realserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// RequireAll is the environment variable that, when it is set, makes a missing
// server a failure instead of a reason to skip.
const RequireAll = "GRPCPOOL_REQUIRE_ALL"

// startsWithin bounds how long a server may take until it answers. It takes well
// below a second, but a loaded machine may need more.
const startsWithin = 30 * time.Second

// Config says what a server is for.
type Config struct {
	Certs      *grpcpooltest.Certs // the server's identity, and whose clients it admits
	MaxStreams int                 // the limit it advertises (SETTINGS_MAX_CONCURRENT_STREAMS)
	Backend    string              // for a proxy: "host:port" of a gRPC server without TLS

	// For nginx: the beginning of the paths that it passes on, "" for all, and, in its
	// own words, what there is for others, such as "location / { return 404; }".
	Only, Others string
}

// Server is a server that can be killed and started again. Its methods must not
// be called concurrently.
type Server struct {
	// Addr is where it serves, "127.0.0.1:port". It stays the same across starts.
	Addr string

	tb     testing.TB
	argv   []string
	dir    string
	client *tls.Config
	proc   *process // nil while stopped
}

// newServer prepares the files that every server needs: ca.pem, server.pem,
// server.key, and both.pem with the last two in one.
func newServer(tb testing.TB, cfg Config) *Server {
	tb.Helper()
	client, err := ClientTLS(cfg.Certs)
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{Addr: FreeAddr(tb), tb: tb, dir: tb.TempDir(), client: client}
	s.write("ca.pem", cfg.Certs.CA.PEM)
	s.write("server.pem", cfg.Certs.Server.CertPEM)
	s.write("server.key", cfg.Certs.Server.KeyPEM)
	s.write("both.pem", append(append([]byte(nil), cfg.Certs.Server.CertPEM...), cfg.Certs.Server.KeyPEM...))
	return s
}

func (s *Server) write(name string, data []byte) {
	s.tb.Helper()
	if err := os.WriteFile(s.path(name), data, 0o600); err != nil {
		s.tb.Fatalf("realserver: %v", err)
	}
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

// run starts the server for the first time and sees to its end.
func (s *Server) run(argv ...string) *Server {
	s.tb.Helper()
	s.argv = argv
	s.tb.Cleanup(s.Kill)
	s.Start()
	return s
}

// Start starts the server and returns once it serves: a client that shows its
// certificate has finished a TLS handshake.
func (s *Server) Start() {
	s.tb.Helper()
	p, err := startProcess(s.argv, s.dir)
	if err != nil {
		s.tb.Fatalf("realserver: starting %s: %v", s.argv[0], err)
	}
	s.proc = p
	ctx, cancel := context.WithTimeout(context.Background(), startsWithin)
	defer cancel()
	go func() {
		select {
		case <-p.exited:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := AwaitHandshake(ctx, s.Addr, s.client); err != nil {
		s.tb.Fatalf("realserver: %v: %v\nIt printed:\n%s", s.argv, err, p.output)
	}
}

// Kill ends the server at once, without letting it say goodbye (SIGKILL), and
// returns when it is gone. Killing a dead server does nothing.
func (s *Server) Kill() {
	if s.proc == nil {
		return
	}
	s.proc.kill()
	if s.tb.Failed() {
		s.tb.Logf("%s printed:\n%s", s.argv[0], s.proc.output)
	}
	s.proc = nil
}

// Signal sends a signal to the server's first process.
func (s *Server) Signal(sig syscall.Signal) {
	s.tb.Helper()
	if s.proc == nil {
		s.tb.Fatalf("realserver: %s is not running", s.argv[0])
	}
	if err := s.proc.signal(sig); err != nil {
		s.tb.Fatalf("realserver: %v to %s: %v", sig, s.argv[0], err)
	}
}

// find returns the path of a server's command, or ends the test.
func find(tb testing.TB, command, debianPackage string) string {
	tb.Helper()
	// Users' PATH often lacks /usr/sbin, where Debian keeps servers.
	for _, name := range []string{command, filepath.Join("/usr/sbin", command)} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	reason := fmt.Sprintf("%s is not installed (Debian's package %s)", command, debianPackage)
	if os.Getenv(RequireAll) != "" {
		tb.Fatalf("%s, and %s is set", reason, RequireAll)
	}
	tb.Skip(reason)
	return ""
}
