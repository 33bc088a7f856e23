//go:build unix

package proxy_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/interop"
)

// tool finds a program that people use. Building one takes minutes, so that .ci/run
// does it once, at versions that stand there.
func tool(t *testing.T, name string) string {
	t.Helper()
	found, err := exec.LookPath(name)
	switch {
	case err == nil:
		return found
	case os.Getenv("GRPCPOOL_REQUIRE_ALL") != "":
		t.Fatalf("%s is not installed; see install_tools in .ci/run", name)
	default:
		t.Skipf("%s is not installed; see install_tools in .ci/run", name)
	}
	return ""
}

func reflected(t *testing.T) *running {
	t.Helper()
	s := startServer(t, interop.NewTestServer())
	return startProxy(t, s.certs, s.addr)
}

func TestGrpcurlWorksThroughTheProxy(t *testing.T) {
	program, p := tool(t, "grpcurl"), reflected(t)
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
	program, p := tool(t, "ghz"), reflected(t)
	out, err := exec.CommandContext(within(t, 2*time.Minute), program, "--insecure", "--call", "grpc.testing.TestService/UnaryCall",
		"-d", `{"responseSize": 100}`, "-n", "2000", "-c", "20", "unix:"+p.socket).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "[OK]   2000 responses") {
		t.Errorf("%v, want 2000 good answers in:\n%s", err, out)
	}
}
