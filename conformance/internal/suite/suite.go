package suite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/davidwartell/go-grpcpool/conformance/internal/results"
)

// Plan is what is run, and how.
type Plan struct {
	Packages []string // patterns as "./balancer/...", of what Choose chose
	Settings []string
	Expected results.List
	Attempts int           // how often a test that differs is run again
	Parallel int           // packages at a time
	AllPlain bool          // every package runs on plain channels too, and the lists of tests are compared
	Timeout  time.Duration // for all tests of a package
	Patience time.Duration // until the next test begins or ends
	Report   func(Report)  // told of each package, one at a time
}

// Report is what came of a package.
type Report struct {
	Package  string
	Took     time.Duration
	Runs     map[string]*results.Run // by setting, Plain among them if all of it was run
	Findings []results.Finding
	Err      error // it could not be run
}

// Check refuses a plan that cannot be run, or that would prove nothing. known are the
// settings that there are.
func (p *Plan) Check(known ...string) error {
	switch {
	case p.Parallel < 1:
		return fmt.Errorf("packages at a time: %d; at least 1 is needed", p.Parallel)
	case p.Attempts < 1:
		return fmt.Errorf("attempts: %d; at least 1 is needed", p.Attempts)
	case p.Timeout <= 0 || p.Patience <= 0:
		return fmt.Errorf("timeout %v, patience %v: both must be more than 0", p.Timeout, p.Patience)
	case len(p.Settings) == 0:
		return errors.New("no setting to run with")
	}
	for i, setting := range p.Settings {
		if !slices.Contains(known, setting) {
			return fmt.Errorf("%q is no setting; there are %s", setting, strings.Join(known, ", "))
		}
		if slices.Contains(p.Settings[:i], setting) {
			return fmt.Errorf("the setting %q is given twice", setting)
		}
	}
	return nil
}

// Select are the chosen packages that a pattern matches, and the patterns that
// match none.
func Select(chosen, patterns []string) (selected, idle []string) {
	for _, pattern := range patterns {
		found := false
		for _, pkg := range chosen {
			if !matches(pattern, pkg) {
				continue
			}
			found = true
			if !slices.Contains(selected, pkg) {
				selected = append(selected, pkg)
			}
		}
		if !found {
			idle = append(idle, pattern)
		}
	}
	return selected, idle
}

func matches(pattern, pkg string) bool {
	tree, ok := strings.CutSuffix(pattern, "/...")
	if !ok {
		return filepath.ToSlash(filepath.Clean(pattern)) == strings.TrimPrefix(pkg, "./")
	}
	return pattern == "./..." || pkg == tree || strings.HasPrefix(pkg, tree+"/")
}

// Run runs the plan to its end.
func (w *Workspace) Run(ctx context.Context, p Plan) {
	r := &runner{workspace: w, plan: p, slots: make(chan struct{}, p.Parallel)}
	queue := make(chan string)
	var told sync.Mutex
	var workers sync.WaitGroup
	for range p.Parallel {
		workers.Go(func() {
			for pkg := range queue {
				report := r.check(ctx, pkg)
				told.Lock()
				p.Report(report)
				told.Unlock()
			}
		})
	}
	for _, pkg := range p.Packages {
		queue <- pkg
	}
	close(queue)
	workers.Wait()
}

// runner runs a plan. The settings of a package run side by side as far as slots
// has room, so that the package that takes longest does not come last alone.
type runner struct {
	workspace *Workspace
	plan      Plan
	slots     chan struct{} // one for each setting of a package that runs
}

// judged is what came of a package with one setting.
type judged struct {
	run      *results.Run
	findings []results.Finding
	err      error
}

// check runs one package with every setting.
func (r *runner) check(ctx context.Context, pkg string) Report {
	start := time.Now()
	report := Report{Package: pkg, Runs: make(map[string]*results.Run)}
	limits := limits{timeout: r.plan.Timeout, patience: r.plan.Patience}
	ours, original := r.workspace.binary(pkg, true, limits), r.workspace.binary(pkg, false, limits)
	defer ours.discard()
	defer original.discard()
	if report.Err = ours.compile(ctx); report.Err != nil {
		return report
	}
	// Most packages never need it.
	plain := sync.OnceValues(func() (*binary, error) { return original, original.compile(ctx) })
	if r.plan.AllPlain {
		if report.Runs[Plain], report.Err = r.plainRun(ctx, plain); report.Err != nil {
			return report
		}
	}
	all := make([]judged, len(r.plan.Settings))
	var settings sync.WaitGroup
	for i, setting := range r.plan.Settings {
		settings.Go(func() {
			r.slots <- struct{}{}
			all[i] = r.judge(ctx, setting, ours, plain, report.Runs[Plain])
			<-r.slots
		})
	}
	settings.Wait()
	for i, setting := range r.plan.Settings {
		if all[i].run != nil {
			report.Runs[setting] = all[i].run
		}
		report.Findings = append(report.Findings, all[i].findings...)
		report.Err = errors.Join(report.Err, all[i].err)
	}
	report.Took = time.Since(start)
	return report
}

// plainRun runs all of a package on plain channels.
func (r *runner) plainRun(ctx context.Context, compile func() (*binary, error)) (*results.Run, error) {
	r.slots <- struct{}{}
	defer func() { <-r.slots }()
	b, err := compile()
	if err != nil {
		return nil, err
	}
	return b.all(ctx, Plain, nil)
}

// judge runs a package with one setting and says what is found. plainRun may be nil.
func (r *runner) judge(ctx context.Context, setting string, ours *binary, plain func() (*binary, error), plainRun *results.Run) (j judged) {
	expected := r.plan.Expected.Of(setting, ours.pkg)
	skip := make([]string, 0, len(expected))
	for _, entry := range expected {
		skip = append(skip, entry.Test)
	}
	if j.run, j.err = ours.all(ctx, setting, skip); j.run == nil {
		return j
	}
	judge := results.Judge{
		Setting:  setting,
		Package:  ours.pkg,
		Expected: r.plan.Expected,
		Attempts: r.plan.Attempts,
		Ours: func(test string) (results.Outcome, string, error) {
			return ours.alone(ctx, setting, test, skip)
		},
		Plain: func(test string) (results.Outcome, string, error) {
			b, err := plain()
			if err != nil {
				return "", "", err
			}
			return b.alone(ctx, Plain, test, skip)
		},
	}
	findings, err := judge.Judge(j.run, plainRun)
	j.findings, j.err = findings, errors.Join(j.err, err)
	return j
}

// Locate asks the go command, from the folder dir, for modules.
func Locate(ctx context.Context, dir string, paths ...string) ([]Module, error) {
	w := &Workspace{source: dir}
	modules := make([]Module, 0, len(paths))
	for _, path := range paths {
		out, err := w.command(ctx, "list", "-m", "-f", "{{.Path}}\n{{.Version}}\n{{.Dir}}", path)
		if err != nil {
			return nil, err
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if len(lines) != 3 {
			return nil, errors.New("suite: " + path + " is not in the module cache: go mod download")
		}
		modules = append(modules, Module{Path: lines[0], Version: lines[1], Dir: lines[2]})
	}
	return modules, nil
}
