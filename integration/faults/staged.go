//go:build linux

package faults

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// To start a command takes longer than what it does, on a busy machine a tenth of
// a second and more, and in that time nobody knows whether a fault is there. So
// commands are started beforehand and wait for their orders.

// order is what a command is told on its standard input.
type order struct {
	in      string // the path of a network namespace; "": this process's own
	command string // of stagedArgs
	text    string
}

// stagedArgs make commands read their orders.
var stagedArgs = map[string][]string{
	iptablesRestore: nil,
	"ip":            {"-batch", "-"},
}

// staged is commands that wait.
type staged []waiting

type waiting struct {
	order

	cmd   *exec.Cmd
	stdin io.WriteCloser
	said  *bytes.Buffer
}

// stage starts commands and returns when all of them wait.
func stage(orders ...order) (staged, error) {
	s := make(staged, 0, len(orders))
	for _, o := range orders {
		w := waiting{order: o, said: new(bytes.Buffer)}
		argv, err := argvIn(o.in, o.command, stagedArgs[o.command]...)
		if err != nil {
			return nil, err
		}
		w.cmd = exec.Command(argv[0], argv[1:]...) //nolint:gosec,noctx // a test's own commands; act ends them
		w.cmd.Stdout, w.cmd.Stderr = w.said, w.said
		if w.stdin, err = w.cmd.StdinPipe(); err != nil {
			return nil, fmt.Errorf("faults: %w", err)
		}
		if err := w.cmd.Start(); err != nil {
			return nil, fmt.Errorf("faults: %s: %w", o.command, err)
		}
		s = append(s, w)
	}
	for _, w := range s {
		if !eventually(w.listens) {
			return nil, fmt.Errorf("faults: %s does not read its orders", w.command)
		}
	}
	return s, nil
}

// listens reports whether the command has been started and sleeps.
func (w waiting) listens() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.cmd.Process.Pid))
	if err != nil {
		return false
	}
	name, rest, _ := strings.Cut(string(stat), ") ") // see proc_pid_stat(5)
	_, name, _ = strings.Cut(name, "(")
	return strings.HasPrefix(w.command, name) && strings.HasPrefix(rest, "S") // a name has 15 bytes at most
}

// act gives the commands their orders, waits for their ends, and tells when they
// were given.
func (s staged) act() (time.Time, error) {
	at := time.Now()
	var errs []error
	for _, w := range s {
		_, err := io.WriteString(w.stdin, w.text)
		errs = append(errs, err, w.stdin.Close())
	}
	for _, w := range s {
		if err := w.cmd.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("faults: %s: %w: %s", w.command, err, bytes.TrimSpace(w.said.Bytes())))
		}
	}
	return at, errors.Join(errs...)
}

// cancel ends the commands without orders. Cancelling those that have had theirs does
// nothing.
func (s staged) cancel() {
	for _, w := range s {
		if w.cmd.ProcessState == nil {
			_ = w.stdin.Close() // which both commands take for the end
			_ = w.cmd.Wait()    // nothing was asked of it
		}
	}
}
