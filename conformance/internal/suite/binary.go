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
	file      string
}

// limits are how long tests may take.
type limits struct {
	timeout  time.Duration // all of a package
	patience time.Duration // until the next test begins or ends
}

// compile compiles the tests of a package, with the overlay or without.
func (w *Workspace) compile(ctx context.Context, pkg string, overlaid bool, l limits) (*binary, error) {
	suffix := ".plain"
	var overlay []string
	if overlaid {
		suffix = ".ours"
		overlay = []string{"-overlay=" + w.overlay()}
	}
	b := &binary{
		workspace: w,
		pkg:       pkg,
		file:      filepath.Join(w.scratch, strings.ReplaceAll(pkg, "/", "+")+suffix),
		limits:    l,
	}
	args := append(w.build("test", overlay...), "-c", "-ldflags=-s -w", "-o", b.file, pkg)
	_, err := w.command(ctx, args...)
	return b, err
}

// discard removes the file.
func (b *binary) discard() { _ = os.Remove(b.file) }

// all runs every test but those to skip. One that ends the process, by a panic or
// by never ending, is left out of a further run of the others.
func (b *binary) all(ctx context.Context, setting string, skip []string) (*results.Run, error) {
	const rounds = 5
	run, crashed, err := b.run(ctx, setting, "-test.skip="+patterns(skip))
	for range rounds {
		if err != nil || !crashed {
			return run, err
		}
		var further *results.Run
		further, crashed, err = b.run(ctx, setting, "-test.skip="+patterns(slices.Concat(skip, run.Odd())))
		if err == nil {
			run.Add(further)
		}
	}
	return run, err
}

// alone runs one test.
func (b *binary) alone(ctx context.Context, setting, test string) (results.Outcome, string, error) {
	var args []string
	if test != results.Whole {
		args = append(args, "-test.run="+patterns([]string{test}))
	}
	run, _, err := b.run(ctx, setting, args...)
	if err != nil {
		return "", "", err
	}
	if outcome := run.Outcome(test); outcome != results.Passed || run.Outcome(results.Whole) == results.Passed {
		return outcome, run.Output[test], nil
	}
	return results.Failed, run.Output[results.Whole], nil
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

// run runs the binary in the package's folder. crashed reports whether it ended
// before its tests did.
func (b *binary) run(ctx context.Context, setting string, args ...string) (run *results.Run, crashed bool, err error) {
	args = append([]string{"-test.v=test2json", "-test.paniconexit0", "-test.timeout=" + b.timeout.String()}, args...)
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	tests := exec.CommandContext(running, b.file, args...) //nolint:gosec // just compiled
	tests.Dir = filepath.Join(b.workspace.source, b.pkg)
	tests.Env = append(os.Environ(), b.workspace.config.Variable+"="+setting, "PWD="+tests.Dir)
	convert := exec.CommandContext(ctx, b.workspace.test2json, "-p", b.pkg) //nolint:gosec // the go command named it
	printed, err := convert.StdinPipe()
	if err != nil {
		return nil, false, err
	}
	tests.Cancel = func() error { return tests.Process.Signal(syscall.SIGQUIT) } // shows what hangs
	tests.WaitDelay = 5 * time.Second
	progress := &progress{to: printed, ended: cancel, patience: b.patience}
	tests.Stdout, tests.Stderr = progress, progress
	events, err := convert.StdoutPipe()
	if err != nil {
		return nil, false, err
	}
	if err := convert.Start(); err != nil {
		return nil, false, err
	}
	ended := make(chan error, 1)
	go func() {
		ended <- errors.Join(progress.watch(tests), printed.Close())
	}()
	run, err = results.Read(events)
	err = errors.Join(err, <-ended, convert.Wait(), ctx.Err())
	if err != nil {
		return nil, false, fmt.Errorf("suite: running the tests of %s: %w", b.pkg, err)
	}
	code := tests.ProcessState.ExitCode()
	if code == 0 {
		run.Outcomes[results.Whole] = results.Passed
	} else {
		run.Outcomes[results.Whole] = results.Failed
	}
	return run, code != 0 && code != 1 || run.Count(results.Unfinished) > 0, nil
}

// progress passes on what tests print, and ends them when no test has begun or
// ended for long: one that hangs shall not cost the time of all.
type progress struct {
	to       io.Writer
	patience time.Duration
	ended    func()
	timer    *time.Timer // set before anything is written
}

// watch runs the tests. That they failed is no error.
func (p *progress) watch(tests *exec.Cmd) error {
	p.timer = time.AfterFunc(p.patience, p.ended)
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
