// Command faultreport makes docs/faults.md of what tests recorded: it reads the
// files named on the command line and writes Markdown to standard output.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/davidwartell/go-grpcpool/integration/faults"
	"github.com/davidwartell/go-grpcpool/integration/internal/faultresult"
)

func main() {
	if err := report(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "faultreport:", err)
		os.Exit(1)
	}
}

func report(files []string) error {
	if len(files) == 0 {
		return errors.New("want the files that " + faultresult.File + " named")
	}
	var results []faultresult.Result
	for _, file := range files {
		data, err := os.ReadFile(file) //nolint:gosec // the caller's own
		if err != nil {
			return err
		}
		more, err := faultresult.Read(bytes.NewReader(data))
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		results = append(results, more...)
	}
	return faults.Report(os.Stdout, results, about())
}

// about says when, of what and on what the results were measured.
func about() string {
	return fmt.Sprintf("Measured on %s at commit %s with %s, grpc-go %s, %s/%s, %d CPUs, Linux %s.",
		time.Now().UTC().Format(time.DateOnly), output("git", "rev-parse", "--short", "HEAD"),
		runtime.Version(), version("google.golang.org/grpc"), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), output("uname", "-r"))
}

func output(command string, args ...string) string {
	out, err := exec.Command(command, args...).Output() //nolint:gosec,noctx // both callers are below; it takes a moment
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func version(module string) string {
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, dep := range info.Deps {
			if dep.Path == module {
				return dep.Version
			}
		}
	}
	return "of an unknown version"
}
