//go:build unix

package scale_test

import (
	"syscall"
	"testing"
)

func suspend(t *testing.T, p *process) { signal(t, p, syscall.SIGSTOP) }

func resume(t *testing.T, p *process) { signal(t, p, syscall.SIGCONT) }

func signal(t *testing.T, p *process, s syscall.Signal) {
	t.Helper()
	if err := p.Signal(s); err != nil {
		t.Fatal(err)
	}
}
