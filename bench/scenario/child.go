package scenario

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"google.golang.org/grpc"
)

// ServeArgument as a program's only argument asks it to call Serve: the
// scenarios that need a server in a process of its own start their program again.
const ServeArgument = "serve"

// Serve is a server until r ends. It writes its address to w.
func Serve(ctx context.Context, r io.Reader, w io.Writer) error {
	s, err := start(ctx, nil, grpc.MaxConcurrentStreams(limit))
	if err != nil {
		return err
	}
	defer s.stop()
	if _, err := fmt.Fprintln(w, s.address); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// child is a server in another process, which ends with ctx or by stop.
type child struct {
	cmd     *exec.Cmd
	address string
	stdin   io.Closer
}

func startChild(ctx context.Context) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, ServeArgument) //nolint:gosec // this program itself
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	c := &child{cmd: cmd, stdin: stdin}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		c.stop()
		return nil, fmt.Errorf("child: its address: %w", err)
	}
	c.address = strings.TrimSpace(line)
	return c, nil
}

// stop ends the process, also one that is stopped by a signal.
func (c *child) stop() {
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		panic(fmt.Sprintf("ending a server process: %v", err)) // it would run on
	}
	_ = c.cmd.Wait() // says that it was killed
	_ = c.stdin.Close()
}
