//go:build linux

package faults

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// burnOn is how many processors the computing goroutines of faultBurn leave the
// process, at most.
const burnOn = 2

// burners are goroutines that compute.
type burners struct {
	running sync.WaitGroup
	stop    atomic.Bool
	before  int // GOMAXPROCS
}

// burn begins n of them. end ends them.
func burn(n int) *burners {
	b := &burners{before: runtime.GOMAXPROCS(0)}
	runtime.GOMAXPROCS(min(b.before, burnOn))
	for i := range n {
		b.running.Go(func() {
			for x := uint64(i); !b.stop.Load(); { //nolint:gosec // a count
				for range 1 << 16 {
					x = x*6364136223846793005 + 1442695040888963407
				}
				burnt.Store(x)
			}
		})
	}
	return b
}

// burnt keeps the compiler from leaving the computation out.
var burnt atomic.Uint64

func (b *burners) end() {
	if b == nil || b.stop.Swap(true) {
		return
	}
	b.running.Wait()
	runtime.GOMAXPROCS(b.before)
}

// stopSelf stops this process as a whole for so long, and lets it go on.
func stopSelf(d time.Duration) error {
	cmd := shell(`kill -STOP "$1" && sleep "$2" && kill -CONT "$1"`, strconv.Itoa(os.Getpid()), seconds(d))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("faults: stopping the client: %w: %s", err, out)
	}
	return nil
}

// freeze stops every goroutine of this process for so long: the runtime stops the
// world while it writes a dump of the heap, and nobody reads it.
func freeze(d time.Duration) error {
	var pipe [2]int // os.Pipe's does not block, and WriteHeapDump wants one that does
	if err := syscall.Pipe2(pipe[:], syscall.O_CLOEXEC); err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	reader := os.NewFile(uintptr(pipe[0]), "dump")
	cmd := shell(`sleep "$1"; exec cat >/dev/null`, seconds(d))
	cmd.Stdin = reader
	err := cmd.Start()
	_ = reader.Close() // the command has its own
	if err == nil {
		debug.WriteHeapDump(uintptr(pipe[1]))
	}
	_ = syscall.Close(pipe[1])
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("faults: freezing the client: %w", err)
	}
	return nil
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) }

// shell is a command that runs a line of shell with arguments.
func shell(line string, args ...string) *exec.Cmd {
	return exec.Command("/bin/sh", append([]string{"-c", line, "sh"}, args...)...) //nolint:gosec,noctx // a test's own; it ends by itself
}
