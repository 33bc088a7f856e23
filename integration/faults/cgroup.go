//go:build linux

package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// cgroup holds a server's process to a share of a processor. Version 2 of control
// groups has one file for that (cpu.max), version 1 has two.
type cgroup struct {
	dir   string
	limit string // the file that holds the process back
	tight string // what limit is set to for that
	loose string // and to lift it
}

// A throttled process may run for a millisecond in each second.
const (
	throttlePeriod = 1_000_000 // microseconds
	throttleQuota  = 1_000
)

// quotaV1 is the file of version 1.
const quotaV1 = "cpu.cfs_quota_us"

// cgroupRoots are where the controller of processors may be, and how each version
// is told.
var cgroupRoots = []cgroup{
	{"/sys/fs/cgroup", "cpu.max", fmt.Sprintf("%d %d", throttleQuota, throttlePeriod), fmt.Sprintf("max %d", throttlePeriod)},
	{"/sys/fs/cgroup/unified", "cpu.max", fmt.Sprintf("%d %d", throttleQuota, throttlePeriod), fmt.Sprintf("max %d", throttlePeriod)},
	{"/sys/fs/cgroup/cpu", quotaV1, strconv.Itoa(throttleQuota), "-1"},
	{"/sys/fs/cgroup/cpu,cpuacct", quotaV1, strconv.Itoa(throttleQuota), "-1"},
}

// cgroupPrefix begins the names of our groups. The id of the process that made one
// follows.
const cgroupPrefix = "faults-"

// newCgroup makes a group, which is removed by remove. An error says why there can be
// none on this machine.
func newCgroup() (*cgroup, error) {
	var errs []error
	for _, root := range cgroupRoots {
		if _, err := os.Stat(filepath.Join(root.dir, "cgroup.procs")); err != nil {
			continue // nothing is mounted there
		}
		sweep(root.dir)
		g := root
		g.dir = filepath.Join(root.dir, cgroupPrefix+strconv.Itoa(os.Getpid()))
		if err := os.Mkdir(g.dir, 0o700); err != nil {
			errs = append(errs, err)
			continue
		}
		err := g.prepare()
		if err == nil {
			return &g, nil
		}
		g.remove()
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		errs = append(errs, errors.New("none is mounted at /sys/fs/cgroup"))
	}
	return nil, fmt.Errorf("faults: no control group that limits processors: %w", errors.Join(errs...))
}

// prepare checks that the limit is there and can be set.
func (g *cgroup) prepare() error {
	if g.limit == quotaV1 {
		if err := g.write("cpu.cfs_period_us", strconv.Itoa(throttlePeriod)); err != nil {
			return err
		}
	}
	return g.write(g.limit, g.loose)
}

// write sets a file that exists.
func (g *cgroup) write(file, text string) error {
	f, err := os.OpenFile(filepath.Join(g.dir, file), os.O_WRONLY, 0) //nolint:gosec // the kernel's
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// throttle holds the process of that id back.
func (g *cgroup) throttle(pid int) error {
	err := g.write("cgroup.procs", strconv.Itoa(pid))
	if err == nil {
		err = g.write(g.limit, g.tight)
	}
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	return nil
}

// release lets the processes in it run again.
func (g *cgroup) release() error {
	if err := g.write(g.limit, g.loose); err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	return nil
}

// remove removes the group. Its processes must have ended.
func (g *cgroup) remove() { _ = os.Remove(g.dir) } // what stays, the next sweep removes

// sweep removes the groups of processes that were killed before they could.
func sweep(root string) {
	dirs, err := filepath.Glob(filepath.Join(root, cgroupPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		pid := strings.TrimPrefix(filepath.Base(dir), cgroupPrefix)
		if _, err := os.Stat(filepath.Join("/proc", pid)); os.IsNotExist(err) {
			_ = os.Remove(dir)
		}
	}
}

// useCgroup makes the group in which a server's process is throttled, and removes it
// when the test ends and the servers have.
func useCgroup(tb testing.TB) *cgroup {
	tb.Helper()
	g, err := newCgroup()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(g.remove)
	return g
}

// uses reports whether the script has a fault of that kind.
func (s *Script) uses(kind string) bool {
	return slices.ContainsFunc(s.Steps, func(step Step) bool {
		f, ok := step.Do.(faultStep)
		return ok && f.kind == kind
	})
}

// Missing says why the script cannot be played on this machine although others can,
// or "".
func (s *Script) Missing() string {
	if !s.uses(faultThrottle) {
		return ""
	}
	g, err := newCgroup()
	if err != nil {
		return err.Error()
	}
	g.remove()
	return ""
}
