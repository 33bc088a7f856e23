//go:build unix

package shared_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// BenchmarkOpen is what it costs this process to open a channel, up to its first answer (a
// pool's ping, a plain channel's health check), in microseconds of CPU. The server is a process of its own.
//
//	go test ./shared -run '^$' -bench Open -count 10 | benchstat -col /what -
func BenchmarkOpen(b *testing.B) {
	for _, transport := range []string{"insecure", "TLS"} {
		address, creds := serveElsewhere(b, transport)
		common, err := grpcpool.NewFactory(address, creds)
		if err != nil {
			b.Fatal(err)
		}
		for _, open := range []struct {
			what string
			f    func() (io.Closer, error)
		}{
			{"plain", func() (io.Closer, error) {
				conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(creds))
				return conn, err
			}},
			{"scale", func() (io.Closer, error) {
				conn, err := scale.NewClient(address, grpc.WithTransportCredentials(creds))
				return conn, err
			}},
			{"pool", func() (io.Closer, error) { return openPool(common) }},
			{"factory-and-pool", func() (io.Closer, error) {
				f, err := grpcpool.NewFactory(address, creds)
				if err != nil {
					return nil, err
				}
				return openPool(f)
			}},
		} {
			b.Run("over="+transport+"/what="+open.what, func(b *testing.B) { benchmarkOpen(b, open.f) })
		}
	}
}

// openPool makes a pool that is ready.
func openPool(f *grpcpool.Factory) (*shared.Pool, error) {
	p := shared.New(f, time.Minute)
	l, err := p.Get(context.Background())
	if err == nil {
		l.Return()
	}
	return p, err
}

// benchmarkOpen opens and closes in batches. Only the opening is measured.
func benchmarkOpen(b *testing.B, open func() (io.Closer, error)) {
	b.Helper()
	const batch = 50
	var used time.Duration
	left := b.N
	for left > 0 {
		n := min(batch, left)
		left -= n
		all := make([]io.Closer, n)
		before := processCPU(b)
		for i := range all {
			var err error
			if all[i], err = open(); err != nil {
				b.Fatal(err)
			}
			conn, ok := all[i].(*grpc.ClientConn)
			if !ok {
				continue // a pool has made an RPC, its ping
			}
			connect(b.Context(), conn)
			if _, err := healthpb.NewHealthClient(conn).Check(b.Context(), &healthpb.HealthCheckRequest{}); err != nil {
				b.Fatal(err)
			}
		}
		used += processCPU(b) - before
		for _, one := range all {
			_ = one.Close()
		}
	}
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-us/op")
}

// connect waits until conn is READY.
func connect(ctx context.Context, conn *grpc.ClientConn) {
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		conn.WaitForStateChange(ctx, state)
	}
}

// BenchmarkIdle is what a channel costs this process while nothing is done with it, in
// microseconds of CPU a second, and the goroutines that it has. The server is a process of
// its own. One iteration takes half a minute:
//
//	go test ./shared -run '^$' -bench Idle -benchtime 1x -count 10 | benchstat -col /what -
func BenchmarkIdle(b *testing.B) {
	address, creds := serveElsewhere(b, "insecure")
	f, err := grpcpool.NewFactory(address, creds)
	if err != nil {
		b.Fatal(err)
	}
	keepalive10 := grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, PermitWithoutStream: true})
	for _, open := range []struct {
		what string
		f    func() (io.Closer, error)
	}{
		{"plain", func() (io.Closer, error) {
			return grpc.NewClient(address, grpc.WithTransportCredentials(creds), keepalive10)
		}},
		{"scale", func() (io.Closer, error) { return scale.NewClient(address, grpc.WithTransportCredentials(creds)) }},
		{"pool", func() (io.Closer, error) { return openPool(f) }},
		{"pool-and-lease", func() (io.Closer, error) {
			p := shared.New(f, time.Minute, shared.WithDrainTimeout(0))
			_, err := p.Get(context.Background())
			return p, err
		}},
	} {
		b.Run("what="+open.what, func(b *testing.B) {
			for b.Loop() {
				benchmarkIdle(b, open.f)
			}
		})
	}
}

func benchmarkIdle(b *testing.B, open func() (io.Closer, error)) {
	b.Helper()
	many, settle, watch := 1000, 3*time.Second, 30*time.Second
	if testing.Short() { // only whether it runs
		many, settle, watch = 10, 0, time.Second
	}
	all := make([]io.Closer, many)
	before := runtime.NumGoroutine()
	for i := range all {
		var err error
		if all[i], err = open(); err != nil {
			b.Fatal(err)
		}
		if conn, ok := all[i].(*grpc.ClientConn); ok {
			connect(b.Context(), conn)
		}
	}
	time.Sleep(settle)
	runtime.GC()
	used, mallocs := processCPU(b), heap()
	time.Sleep(watch)
	used = processCPU(b) - used
	b.ReportMetric(float64(used.Microseconds())/float64(many)/watch.Seconds(), "cpu-us/s")
	b.ReportMetric(float64(runtime.NumGoroutine()-before)/float64(many), "goroutines")
	b.ReportMetric(float64(mallocs)/float64(many), "heap-B")
	for _, one := range all {
		_ = one.Close()
	}
}

// heap is how much memory is in use, stacks included.
func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// processCPU is how much processor time this process has used.
func processCPU(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// serverDir is the environment variable that makes this program a server of
// TestServesABenchmark.
const serverDir = "GRPCPOOL_BENCHMARK_SERVER"

// serveElsewhere starts a server in a process of its own, and returns its address and the
// credentials for it.
func serveElsewhere(tb testing.TB, transport string) (address string, creds credentials.TransportCredentials) {
	tb.Helper()
	dir := tb.TempDir()
	server := exec.CommandContext(tb.Context(), os.Args[0], "-test.run=^TestServesABenchmark$")
	server.Env = append(os.Environ(), serverDir+"="+dir, "GRPCPOOL_BENCHMARK_TRANSPORT="+transport)
	stdin, err := server.StdinPipe() // its end ends the server
	if err != nil {
		tb.Fatal(err)
	}
	stdout, err := server.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := server.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = stdin.Close()
		_ = server.Wait()
	})
	address, err = bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		tb.Fatal(err)
	}
	address = strings.TrimSpace(address)
	if transport != "TLS" {
		return address, insecure.NewCredentials()
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "client.pem"), filepath.Join(dir, "client-key.pem"))
	if err != nil {
		tb.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		tb.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return address, credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, RootCAs: roots})
}

// TestServesABenchmark is the server of serveElsewhere, in a process of its own.
func TestServesABenchmark(t *testing.T) {
	dir := os.Getenv(serverDir)
	if dir == "" {
		t.Skip("this is the server of a benchmark")
	}
	opts := []grpcpooltest.Option{grpcpooltest.WithoutCounts()}
	if os.Getenv("GRPCPOOL_BENCHMARK_TRANSPORT") == "TLS" {
		opts = append(opts, grpcpooltest.WithMutualTLS())
	}
	server := grpcpooltest.NewServer(t, opts...)
	if certs := server.Certs(); certs != nil {
		if _, err := certs.WriteFiles(dir); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Println(server.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
}
