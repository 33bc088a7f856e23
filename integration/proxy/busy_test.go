//go:build unix

package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/integration/internal/faultresult"
	"github.com/davidwartell/go-grpcpool/integration/internal/realserver"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// busyServer starts a server of testdata that is busy when it is called, and returns its
// address.
func busyServer(t *testing.T, certs *grpcpooltest.Certs, program ...string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string][]byte{"ca.pem": certs.CA.PEM, "server.pem": certs.Server.CertPEM, "server.key": certs.Server.KeyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program[0], append(program[1:], dir)...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Process.Kill()
		cmd.Wait() // says that it was killed
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	port, atoi := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || atoi != nil {
		t.Fatalf("%v: want a port, got %q: %v", program, line, err)
	}
	return fmt.Sprintf("localhost:%d", port)
}

// busyClients are a plain channel and everything that must not be worse.
func busyClients(t *testing.T, certs *grpcpooltest.Certs, addr string) map[string]grpc.ClientConnInterface {
	t.Helper()
	config, err := realserver.ClientTLS(certs)
	if err != nil {
		t.Fatal(err)
	}
	creds := grpc.WithTransportCredentials(credentials.NewTLS(config))
	plain, err := grpc.NewClient(addr, creds)
	if err != nil {
		t.Fatal(err)
	}
	channel, err := scale.NewClient(addr, creds)
	if err != nil {
		t.Fatal(err)
	}
	factory, err := grpcpool.NewMutualTLSFactory(certs.CA.PEM, certs.Client.CertPEM, certs.Client.KeyPEM, addr,
		30*time.Second, 10*time.Second, nil)
	if err != nil {
		t.Fatal(err)
	}
	pool := shared.New(factory, time.Minute)
	t.Cleanup(func() {
		plain.Close()
		channel.Close()
		pool.Close()
	})
	return map[string]grpc.ClientConnInterface{
		"plain": plain, "scale": channel, "pool": pool, "proxy": startProxy(t, certs, addr).client(),
	}
}

// takes makes a call that keeps a worker of the server busy for so long.
func takes(ctx context.Context, cc grpc.ClientConnInterface, d time.Duration) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "takes-ms", strconv.FormatInt(d.Milliseconds(), 10))
	_, err := testpb.NewTestServiceClient(cc).UnaryCall(ctx, &testpb.SimpleRequest{})
	return err
}

// wave is calls that every client begins after a while.
type wave struct {
	after, takes time.Duration
	calls        int
}

// testBusy has all clients make the same calls, and no client may lose one that plain's
// like is answered.
func testBusy(t *testing.T, injected, addr string, certs *grpcpooltest.Certs, waves ...wave) {
	t.Helper()
	clients := busyClients(t, certs, addr)
	ctx := within(t, 90*time.Second)
	for name, cc := range clients {
		if err := takes(ctx, cc, 0); err != nil {
			t.Fatalf("%s, before the server is busy: %v", name, err)
		}
	}
	var mu sync.Mutex // guards lost and slowest
	lost, slowest := make(map[string]int), make(map[string]time.Duration)
	var calls sync.WaitGroup
	for name, cc := range clients {
		for _, w := range waves {
			for range w.calls {
				calls.Go(func() {
					select {
					case <-time.After(w.after):
					case <-ctx.Done():
					}
					began := time.Now()
					err := takes(ctx, cc, w.takes)
					took := time.Since(began)
					mu.Lock()
					defer mu.Unlock()
					slowest[name] = max(slowest[name], took)
					if err != nil {
						lost[name]++
						t.Logf("%s: after %v: %v", name, took.Round(time.Millisecond), err)
					}
				})
			}
		}
	}
	calls.Wait()
	if lost["plain"] > 0 {
		t.Fatalf("plain lost %d calls: the server is not only busy", lost["plain"])
	}
	for name := range clients {
		if lost[name] > 0 {
			t.Errorf("%s lost %d calls, plain none", name, lost[name])
		}
		t.Logf("%s: the slowest call took %v", name, slowest[name].Round(time.Millisecond))
		if name != "plain" {
			faultresult.Record(t, faultresult.Result{
				Row: 35, Client: name, Injected: injected, Promised: "0 calls lost", Held: lost[name] == 0,
				Note: fmt.Sprintf("%s: %d lost; the slowest took %v, plain's %v",
					t.Name(), lost[name], slowest[name].Round(time.Millisecond), slowest["plain"].Round(time.Millisecond)),
			})
		}
	}
}

// Row 35 of the fault matrix. Both workers of the server are busy for some 10 s, and its
// health service waits for one of them like any other.
func TestCallsToAPythonServerWithBusyWorkersAreAnsweredLate(t *testing.T) {
	const python = "/usr/bin/python3" // Debian's packages are for no other
	if out, err := exec.CommandContext(within(t, soon), python, "-c", "import grpc").CombinedOutput(); err != nil {
		reason := fmt.Sprintf("Debian's package python3-grpcio is not installed: %v: %s", err, out)
		if os.Getenv("GRPCPOOL_REQUIRE_ALL") != "" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	certs, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	addr := busyServer(t, certs, python, "testdata/busy.py")
	testBusy(t, "grpcio with two workers, both busy", addr, certs,
		wave{0, 1500 * time.Millisecond, 3}, wave{time.Second, 0, 1}, wave{4 * time.Second, 0, 2})
}

// Row 35 of the fault matrix. The server has one thread: while that computes, its HTTP/2
// does not answer either.
func TestCallsToANodeServerWithABlockedEventLoopAreAnsweredLate(t *testing.T) {
	dir := nodeDir(t, "busy.js")
	certs, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	addr := busyServer(t, certs, "node", filepath.Join(dir, "busy.js"))
	testBusy(t, "grpc-js with a blocked event loop", addr, certs,
		wave{0, 600 * time.Millisecond, 1}, wave{200 * time.Millisecond, 0, 2}, wave{2 * time.Second, 0, 2})
}
