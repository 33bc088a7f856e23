//go:build linux

package faults

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// Missing says why no scenario can be played on this machine, or "".
func Missing() string {
	if os.Geteuid() != 0 {
		return "network namespaces need root"
	}
	for _, tool := range Tools() {
		if _, err := find(tool); err != nil {
			return fmt.Sprintf("%v (Debian's packages iproute2, iptables, util-linux, coreutils)", err)
		}
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^$") //nolint:noctx // a moment
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Sprintf("no network namespace can be made: %v: %s", err, bytes.TrimSpace(out))
	}
	return ""
}

// Inside runs one test of this test binary in a process that has a network
// namespace of its own, with env added to its environment, and returns what it
// printed. An error means that the test failed, or that it was not there.
func Inside(ctx context.Context, test string, timeout time.Duration, env ...string) (string, error) {
	here, err := namespace()
	if err != nil {
		return "", fmt.Errorf("faults: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("faults: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, "-test.run=^"+test+"$", "-test.v", "-test.count=1", "-test.timeout="+timeout.String()) //nolint:gosec // itself
	cmd.Env = slices.Concat(os.Environ(), []string{outside + "=" + here}, env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err == nil && !bytes.Contains(out, []byte("--- PASS: "+test)) {
		err = fmt.Errorf("faults: %s did not run", test)
	}
	return string(out), err
}
