//go:build unix

package proxy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/interop"
)

// Programs that people use, built from source at these versions.
const (
	grpcurl = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3"
	ghz     = "github.com/bojand/ghz/cmd/ghz@v0.120.0"
)

// tool builds a program, outside this module and its versions. That takes minutes
// the first time, so it is done only where everything is tested.
func tool(t *testing.T, path string) string {
	t.Helper()
	name, _, _ := strings.Cut(filepath.Base(path), "@")
	if found, err := exec.LookPath(name); err == nil {
		return found
	}
	if os.Getenv("GRPCPOOL_REQUIRE_ALL") == "" {
		t.Skip(name + " is not installed, and is built only with GRPCPOOL_REQUIRE_ALL")
	}
	bin := t.TempDir()
	cmd := exec.CommandContext(within(t, 15*time.Minute), "go", "install", path)
	cmd.Dir = bin
	cmd.Env = append(os.Environ(), "GOBIN="+bin, "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go install %s: %v\n%s", path, err, out)
	}
	return filepath.Join(bin, name)
}

func reflected(t *testing.T) *running {
	t.Helper()
	s := startServer(t, interop.NewTestServer())
	return startProxy(t, s.certs, s.addr)
}

func TestGrpcurlWorksThroughTheProxy(t *testing.T) {
	program, p := tool(t, grpcurl), reflected(t)
	for _, test := range []struct{ data, what, method, want string }{
		{"{}", "list", "", "grpc.testing.TestService\n"},
		{"{}", "describe", "grpc.testing.TestService.UnaryCall", "rpc UnaryCall ( .grpc.testing.SimpleRequest ) returns ( .grpc.testing.SimpleResponse )"},
		{`{"responseSize": 5}`, "", "grpc.testing.TestService/UnaryCall", `"body": "AAAAAAA="`},
		{`{"responseParameters": [{"size": 5}, {"size": 5}]}`, "", "grpc.testing.TestService/StreamingOutputCall", `"body": "AAAAAAA="`},
	} {
		args := []string{"-plaintext", "-d", test.data, "unix://" + p.socket}
		for _, a := range []string{test.what, test.method} {
			if a != "" {
				args = append(args, a)
			}
		}
		out, err := exec.CommandContext(within(t, time.Minute), program, args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), test.want) {
			t.Errorf("grpcurl %q: %v, want %q in:\n%s", args, err, test.want, out)
		}
	}
}

func TestGhzWorksThroughTheProxy(t *testing.T) {
	program, p := tool(t, ghz), reflected(t)
	out, err := exec.CommandContext(within(t, 2*time.Minute), program, "--insecure", "--call", "grpc.testing.TestService/UnaryCall",
		"-d", `{"responseSize": 100}`, "-n", "2000", "-c", "20", "unix:"+p.socket).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "[OK]   2000 responses") {
		t.Errorf("%v, want 2000 good answers in:\n%s", err, out)
	}
}
