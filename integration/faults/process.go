//go:build linux

package faults

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a server in a process of its own, which can be stopped, killed and
// started again.
type process struct {
	config serverConfig
	in     string // the path of its network namespace; "": this process's own

	cmd     *exec.Cmd // nil: dead
	stdin   io.WriteCloser
	stdout  *bufio.Reader
	stopped bool
	muted   bool
	cgroup  *cgroup // that holds it back; nil: it is not throttled
}

// start starts the process and returns when it listens.
func (p *process) start() error {
	config, err := json.Marshal(p.config)
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	argv := []string{self}
	if p.in != "" {
		nsenter, err := find("nsenter") // becomes the server: the process is the same
		if err != nil {
			return fmt.Errorf("faults: %w", err)
		}
		argv = []string{nsenter, "--net=" + p.in, self}
	}
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:gosec,noctx // ended by kill
	cmd.Env = append(os.Environ(), asServer+"="+string(config))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("faults: starting a server: %w", err)
	}
	p.cmd, p.stdin, p.stdout, p.stopped, p.muted = cmd, stdin, bufio.NewReader(stdout), false, false
	if line, err := p.stdout.ReadString('\n'); line != serving {
		p.kill()
		return fmt.Errorf("faults: the server at %s said %q instead of %q: %w", p.config.Addr, line, serving, err)
	}
	return nil
}

// ask gives the server an order and returns its answer.
func (p *process) ask(order string) (string, error) {
	if p.cmd == nil || p.stopped {
		return "", fmt.Errorf("faults: the server cannot be asked to %s while it is stopped", order)
	}
	if _, err := io.WriteString(p.stdin, order+"\n"); err != nil {
		return "", fmt.Errorf("faults: asking the server to %s: %w", order, err)
	}
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("faults: asking the server to %s: %w", order, err)
	}
	return strings.TrimSpace(line), nil
}

// restart has the server be away for so long, and tells when it was back.
func (p *process) restart(away time.Duration) (time.Time, error) {
	answer, err := p.ask(orderRestart + " " + away.String())
	if err != nil {
		return time.Time{}, err
	}
	ns, err := strconv.ParseInt(answer, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("faults: the server said when it was back: %w", err)
	}
	return time.Unix(0, ns), nil
}

// counted is how many probes, and how many other RPCs than the scenario's, a server has
// seen.
type counted struct{ probes, others int }

func (p *process) count() (c counted, err error) {
	answer, err := p.ask(orderCount)
	if err == nil {
		_, err = fmt.Sscan(answer, &c.probes, &c.others)
	}
	return c, err
}

// mute has the health service not answer any more, or answer again.
func (p *process) mute(mute bool) error {
	p.muted = mute
	_, err := p.ask(orderMute + " " + strconv.FormatBool(mute))
	return err
}

// throttle has the process hardly run any more.
func (p *process) throttle(g *cgroup) error {
	if p.cmd == nil {
		return errors.New("faults: the server is dead already")
	}
	p.cgroup = g
	return g.throttle(p.cmd.Process.Pid)
}

// signal stops the process or lets it go on.
func (p *process) signal(stop bool) error {
	if p.cmd == nil {
		return errors.New("faults: the server is dead already")
	}
	p.stopped = stop
	sig := syscall.SIGCONT
	if stop {
		sig = syscall.SIGSTOP
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	return nil
}

// kill ends the process at once and waits for it. Killing a dead one does nothing.
func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	if p.cgroup != nil {
		_ = p.cgroup.release() // it dies sooner when it may run
		p.cgroup = nil
	}
	_ = p.cmd.Process.Kill() // fails if it is dead, which is what is wanted
	_ = p.cmd.Wait()         // says that it was killed
	_ = p.stdin.Close()
	p.cmd = nil
}

// heal lets the process go on, or starts it again.
func (p *process) heal() error {
	switch {
	case p.cgroup != nil:
		g := p.cgroup
		p.cgroup = nil
		return g.release()
	case p.cmd == nil:
		return p.start()
	case p.muted:
		return p.mute(false)
	case p.stopped:
		return p.signal(false)
	default:
		return nil
	}
}

// openFiles counts the descriptors of this process.
func openFiles() (int, error) {
	entries, err := os.ReadDir(filepath.Join("/proc", "self", "fd"))
	if err != nil {
		return 0, fmt.Errorf("faults: %w", err)
	}
	return len(entries), nil
}
