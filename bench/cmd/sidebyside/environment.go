package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
)

// environment is the head of a raw file: where, and with which versions.
func environment() string {
	var b strings.Builder
	fmt.Fprintf(&b, "goos: %s\ngoarch: %s\npkg: github.com/davidwartell/go-grpcpool/bench/scenario\ncpu: %s\ngo: %s\ncores: %d\n",
		runtime.GOOS, runtime.GOARCH, cpu(), runtime.Version(), runtime.NumCPU())
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b.String()
	}
	for _, dep := range info.Deps {
		if key, ok := versioned[dep.Path]; ok {
			fmt.Fprintf(&b, "%s: %s\n", key, dep.Version)
		}
	}
	return b.String()
}

// versioned are the modules whose versions count, and their keys in raw files.
var versioned = map[string]string{
	"google.golang.org/grpc":                             "grpc-go",
	"github.com/GoogleCloudPlatform/grpc-gcp-go/grpcgcp": "grpcgcp",
	"google.golang.org/api":                              "googleapi",
	"github.com/jolestar/go-commons-pool/v2":             "go-commons-pool",
	"github.com/mostynb/go-grpc-compression":             "mostynb",
	"github.com/golang/snappy":                           "golang-snappy",
	"github.com/klauspost/compress":                      "klauspost-compress",
}

func cpu() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer f.Close() //nolint:errcheck // it was only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// profile begins to profile into dir, if there is one, until end.
func profile(dir string) (end func() error, err error) {
	if dir == "" {
		return func() error { return nil }, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // profiles are no secret
		return nil, err
	}
	runtime.SetMutexProfileFraction(5)
	runtime.SetBlockProfileRate(10_000)                  // one sample per 10 us blocked
	f, err := os.Create(filepath.Join(dir, "cpu.pprof")) //nolint:gosec // the caller's own directory
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() error {
		pprof.StopCPUProfile()
		errs := make([]error, 0, 4)
		errs = append(errs, f.Close())
		for _, name := range []string{"allocs", "mutex", "block"} {
			errs = append(errs, writeProfile(dir, name))
		}
		return errors.Join(errs...)
	}, nil
}

func writeProfile(dir, name string) error {
	f, err := os.Create(filepath.Join(dir, name+".pprof")) //nolint:gosec // the caller's own directory
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup(name).WriteTo(f, 0), f.Close())
}
