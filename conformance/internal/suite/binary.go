package suite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/davidwartell/go-grpcpool/conformance/internal/results"
)

// Plain is the setting of a binary without the overlay.
const Plain = "plain"

// binary is a package's compiled tests.
type binary struct {
	limits

	workspace *Workspace
	pkg       string // as "./test"
	overlaid  bool
	file      string
}

// limits are how long tests may take.
type limits struct {
	timeout  time.Duration // all of a package
	patience time.Duration // until the next test begins or ends
}

// binary is that of a package, with the overlay or without, before it is compiled.
func (w *Workspace) binary(pkg string, overlaid bool, l limits) *binary {
	suffix := ".plain"
	if overlaid {
		suffix = ".ours"
	}
	return &binary{
		workspace: w,
		pkg:       pkg,
		overlaid:  overlaid,
		file:      filepath.Join(w.scratch, strings.ReplaceAll(pkg, "/", "+")+suffix),
		limits:    l,
	}
}

// compile writes the file.
func (b *binary) compile(ctx context.Context) error {
	var overlay []string
	if b.overlaid {
		overlay = []string{"-overlay=" + b.workspace.overlay()}
	}
	args := append(b.workspace.build("test", overlay...), "-c", "-ldflags=-s -w", "-o", b.file, b.pkg)
	_, err := b.workspace.command(ctx, args...)
	return err
}

// discard removes the file, if there is one.
func (b *binary) discard() { _ = os.Remove(b.file) }

// unreachedError says that some tests of a package were not run.
type unreachedError struct {
	pkg, setting string
	rounds       int
	odd          []string
}

func (e *unreachedError) Error() string {
	return fmt.Sprintf("suite: the tests of %s (%s) ended early in each of %d runs, so some were never run; mend or list first: %s",
		e.pkg, e.setting, e.rounds, strings.Join(e.odd, ", "))
}

// all runs every test but those to skip. One that ends the process, by a panic or
// by never ending, is left out of a further run of the others. With an
// unreachedError it returns what was run.
func (b *binary) all(ctx context.Context, setting string, skip []string) (*results.Run, error) {
	const rounds = 6
	var run *results.Run
	for range rounds {
		left := skip
		if run != nil {
			left = slices.Concat(skip, run.Odd())
		}
		further, err := b.run(ctx, setting, "-test.skip="+patterns(left))
		if err != nil {
			return nil, err
		}
		cut := further.Cut()
		if run == nil {
			run = further
		} else {
			run.Add(further)
		}
		if !cut {
			return run, nil
		}
	}
	return run, &unreachedError{pkg: b.pkg, setting: setting, rounds: rounds, odd: run.Odd()}
}

// alone runs one test, or the whole package, without what is expected to differ
// there.
func (b *binary) alone(ctx context.Context, setting, test string, expected []string) (results.Outcome, string, error) {
	args := []string{"-test.skip=" + patterns(within(test, expected))}
	if test != results.Whole {
		args = append(args, "-test.run="+patterns([]string{test}))
	}
	run, err := b.run(ctx, setting, args...)
	if err != nil {
		return "", "", err
	}
	outcome, whole := run.Outcome(test), run.Outcome(results.Whole)
	if outcome == results.Passed && whole != results.Passed || outcome == results.Missing && run.Cut() {
		return whole, run.Output[results.Whole], nil
	}
	return outcome, run.Output[test], nil
}

// within are those of the tests that are subtests of test, or all if that is the
// whole package.
func within(test string, tests []string) (subtests []string) {
	for _, other := range tests {
		if test == results.Whole || strings.HasPrefix(other, test+"/") {
			subtests = append(subtests, other)
		}
	}
	return subtests
}

// patterns matches these tests and no others.
func patterns(tests []string) string {
	alternatives := make([]string, 0, len(tests))
	for _, test := range tests {
		elements := strings.Split(test, "/")
		for i, e := range elements {
			elements[i] = "^" + regexp.QuoteMeta(e) + "$"
		}
		alternatives = append(alternatives, strings.Join(elements, "/"))
	}
	return strings.Join(alternatives, "|")
}

// run runs the binary in the package's folder.
func (b *binary) run(ctx context.Context, setting string, args ...string) (*results.Run, error) {
	args = append([]string{"-test.v=test2json", "-test.paniconexit0", "-test.timeout=" + b.timeout.String()}, args...)
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	tests := exec.CommandContext(running, b.file, args...) //nolint:gosec // just compiled
	tests.Dir = filepath.Join(b.workspace.source, b.pkg)
	tests.Env = append(os.Environ(), b.workspace.config.Variable+"="+setting, "PWD="+tests.Dir, "TMPDIR="+b.workspace.temporary())
	convert := exec.CommandContext(ctx, b.workspace.test2json, "-p", b.pkg) //nolint:gosec // the go command named it
	printed, err := convert.StdinPipe()
	if err != nil {
		return nil, err
	}
	tests.Cancel = func() error { return tests.Process.Signal(syscall.SIGQUIT) } // shows what hangs
	tests.WaitDelay = 5 * time.Second
	progress := &progress{to: printed, cancel: cancel, patience: b.patience}
	tests.Stdout, tests.Stderr = progress, progress
	events, err := convert.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := convert.Start(); err != nil {
		return nil, err
	}
	start := time.Now()
	ended := make(chan error, 1)
	go func() {
		ended <- errors.Join(progress.watch(tests), printed.Close())
	}()
	run, err := results.Read(events)
	err = errors.Join(err, <-ended, convert.Wait(), ctx.Err())
	if err != nil {
		return nil, fmt.Errorf("suite: running the tests of %s: %w", b.pkg, err)
	}
	// After the timeout the tests end themselves.
	run.End(tests.ProcessState.ExitCode(), progress.stopped.Load() || time.Since(start) >= b.timeout)
	return run, nil
}

// progress passes on what tests print, and ends them when no test has begun or
// ended for long: one that hangs shall not cost the time of all.
type progress struct {
	to       io.Writer
	patience time.Duration
	cancel   func()
	stopped  atomic.Bool // it ended them
	timer    *time.Timer // set before anything is written
}

// watch runs the tests. That they failed is no error.
func (p *progress) watch(tests *exec.Cmd) error {
	p.timer = time.AfterFunc(p.patience, func() {
		p.stopped.Store(true)
		p.cancel()
	})
	defer p.timer.Stop()
	err := tests.Run()
	if tests.ProcessState != nil && tests.ProcessState.Exited() {
		return nil
	}
	return err
}

// marker begins the lines in which a test binary tells of a test.
const marker = 0x16

func (p *progress) Write(b []byte) (int, error) {
	if bytes.IndexByte(b, marker) >= 0 {
		p.timer.Reset(p.patience)
	}
	return p.to.Write(b)
}
