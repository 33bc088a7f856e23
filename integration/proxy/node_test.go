//go:build unix

package proxy_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/interop"
)

// grpcJS is npm's gRPC, which shares no code with grpc-go.
const grpcJS = "@grpc/grpc-js@1.14.7"

// nodeDir is a directory with grpc-js and a program of testdata.
func nodeDir(t *testing.T, name string) string {
	t.Helper()
	missing := t.Skip
	if os.Getenv("GRPCPOOL_REQUIRE_ALL") != "" {
		missing = t.Fatal
	}
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(tool + " is not installed (Debian's packages nodejs and npm)")
		}
	}
	dir := t.TempDir()
	install := exec.CommandContext(within(t, 5*time.Minute), "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", dir, grpcJS)
	if out, err := install.CombinedOutput(); err != nil {
		missing(fmt.Sprintf("npm install %s: %v\n%s", grpcJS, err, out))
	}
	program, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), program, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestThirtyNodeProgramsShareOneConnection(t *testing.T) {
	dir := nodeDir(t, "call.js")
	s := startServer(t, interop.NewTestServer())
	p := startProxy(t, s.certs, s.addr)
	atATime := make(chan struct{}, 4) // each takes a processor for a moment
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			atATime <- struct{}{}
			defer func() { <-atATime }()
			out, err := exec.CommandContext(within(t, 2*time.Minute), "node", filepath.Join(dir, "call.js"), p.socket).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "metadata from node\n") || !strings.Contains(string(out), "answer 4") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	if n := s.accepted.Load(); n != 1 {
		t.Errorf("the server saw %d connections, want 1", n)
	}
}
