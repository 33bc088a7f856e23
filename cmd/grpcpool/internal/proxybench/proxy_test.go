//go:build unix

package proxybench_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	testpb "google.golang.org/grpc/interop/grpc_testing"
)

var (
	round   = flag.Int("round", 0, "peers take turns: which round this is")
	command = flag.String("command", "", "the program grpcpool, whose proxy is measured (default: it is built)")
)

func TestMain(m *testing.M) {
	if role := os.Getenv(asRole); role != "" {
		if err := run(role, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	code := m.Run()
	os.RemoveAll(buildDir)
	os.Exit(code)
}

// buildDir is the directory in which program has built the command; "" before that.
var buildDir string

// program returns the path of the command. The first call builds it.
func program(b *testing.B) string {
	b.Helper()
	if *command != "" {
		return *command
	}
	var err error
	if buildDir, err = os.MkdirTemp("", "bench"); err != nil { //nolint:usetesting // for all benchmarks
		b.Fatal(err)
	}
	*command = filepath.Join(buildDir, "grpcpool")
	build := exec.Command("go", "build", "-o", *command, ".")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("building the command: %v\n%s", err, out)
	}
	return *command
}

// cpu measures the CPU time of a benchmark's loop in all processes.
func (s *site) cpu(b *testing.B, loop func()) {
	b.Helper()
	before := s.used(b)
	b.ResetTimer()
	loop()
	b.StopTimer()
	b.ReportMetric(float64(s.used(b)-before)/float64(b.N), "cpu-ns/op")
}

func (s *site) each(b *testing.B, name string, run func(b *testing.B, client testpb.TestServiceClient)) {
	b.Helper()
	for _, w := range s.ways() {
		b.Run(name+"/way="+w.name, func(b *testing.B) {
			cc, err := w.dial()
			if err != nil {
				b.Fatal(err)
			}
			defer cc.Close()
			run(b, testpb.NewTestServiceClient(cc))
		})
	}
}

// BenchmarkUnary measures warm unary calls, one at a time and 32 at a time.
func BenchmarkUnary(b *testing.B) {
	s := newSite(b)
	for _, size := range []int{0, 16 << 10, 1 << 20} {
		s.unary(b, size)
	}
}

// BenchmarkUnaryInOneProcess is BenchmarkUnary for empty messages, with client, proxy and
// server in this process: without the cost of switching between processes.
func BenchmarkUnaryInOneProcess(b *testing.B) {
	newSiteInOneProcess(b).unary(b, 0)
}

func (s *site) unary(b *testing.B, size int) {
	b.Helper()
	in := &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, size)}}
	for _, callers := range []int{1, 32} {
		s.each(b, "bytes="+strconv.Itoa(size)+"/callers="+strconv.Itoa(callers), func(b *testing.B, client testpb.TestServiceClient) {
			b.Helper()
			call := func() {
				if _, err := client.UnaryCall(b.Context(), in); err != nil {
					b.Error(err)
				}
			}
			call()
			b.SetBytes(int64(2 * size))
			b.SetParallelism((callers + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
			s.cpu(b, func() {
				if callers == 1 {
					for range b.N {
						call()
					}
					return
				}
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						call()
					}
				})
			})
		})
	}
}

// BenchmarkStream measures messages from the server on one stream.
func BenchmarkStream(b *testing.B) {
	s := newSite(b)
	for _, size := range []int{16 << 10, 1 << 20} {
		s.each(b, "bytes="+strconv.Itoa(size), func(b *testing.B, client testpb.TestServiceClient) {
			b.Helper()
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			stream, err := client.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{
				ResponseParameters: []*testpb.ResponseParameters{{Size: int32(size)}},
			})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			s.cpu(b, func() {
				for range b.N {
					if _, err := stream.Recv(); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkFirstCall measures a program that makes one call: it opens a channel, calls, and
// closes the channel.
func BenchmarkFirstCall(b *testing.B) {
	s := newSite(b)
	for _, w := range s.ways() {
		b.Run("way="+w.name, func(b *testing.B) {
			s.cpu(b, func() {
				for range b.N {
					cc, err := w.dial()
					if err != nil {
						b.Fatal(err)
					}
					if _, err := testpb.NewTestServiceClient(cc).UnaryCall(b.Context(), &testpb.SimpleRequest{}); err != nil {
						b.Error(err)
					}
					cc.Close()
				}
			})
		})
	}
}
