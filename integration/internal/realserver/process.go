//go:build unix

package realserver

import (
	"bytes"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// process is a running command with its children.
type process struct {
	cmd    *exec.Cmd
	output *output
	exited chan struct{} // closed when the command has ended
	err    error         // why; readable once exited is closed
}

// output keeps what a process prints.
type output struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// startProcess runs a command in a process group of its own, so that kill reaches
// its children too.
func startProcess(argv []string, dir string) (*process, error) {
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:gosec,noctx // tests start what they name, and stop it themselves
	p := &process{cmd: cmd, output: &output{}, exited: make(chan struct{})}
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = p.output, p.output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 5 * time.Second // for a grandchild that keeps the output open
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.exited)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// kill ends the process and its children at once and waits for the end.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // fails if all of them are gone, which is what is wanted
	<-p.exited
}

// signal sends a signal to the process alone, not to its children.
func (p *process) signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }
