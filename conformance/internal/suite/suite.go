package suite

import (
	"context"
	"errors"
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
	queue := make(chan string)
	var told sync.Mutex
	var workers sync.WaitGroup
	for range p.Parallel {
		workers.Go(func() {
			for pkg := range queue {
				report := w.check(ctx, &p, pkg)
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

// check runs one package with every setting.
func (w *Workspace) check(ctx context.Context, p *Plan, pkg string) (r Report) {
	start := time.Now()
	r = Report{Package: pkg, Runs: make(map[string]*results.Run)}
	defer func() { r.Took = time.Since(start) }()
	ours, err := w.compile(ctx, pkg, true, limits{timeout: p.Timeout, patience: p.Patience})
	if err != nil {
		r.Err = err
		return r
	}
	defer ours.discard()
	plain := &plainTests{workspace: w, pkg: pkg, limits: ours.limits}
	defer plain.discard()
	if p.AllPlain {
		if r.Runs[Plain], r.Err = plain.all(ctx); r.Err != nil {
			return r
		}
	}
	for _, setting := range p.Settings {
		if err := r.judge(ctx, p, setting, ours, plain); err != nil {
			r.Err = err
			return r
		}
	}
	return r
}

// judge runs the package with one setting and notes what is found.
func (r *Report) judge(ctx context.Context, p *Plan, setting string, ours *binary, plain *plainTests) error {
	var skip []string
	for _, entry := range p.Expected.Of(setting, r.Package) {
		skip = append(skip, entry.Test)
	}
	run, err := ours.all(ctx, setting, skip)
	if err != nil {
		return err
	}
	r.Runs[setting] = run
	judge := results.Judge{
		Setting:  setting,
		Package:  r.Package,
		Expected: p.Expected,
		Attempts: p.Attempts,
		Ours: func(test string) (results.Outcome, string, error) {
			return ours.alone(ctx, setting, test)
		},
		Plain: func(test string) (results.Outcome, string, error) {
			return plain.alone(ctx, test)
		},
	}
	findings, err := judge.Judge(run, r.Runs[Plain])
	r.Findings = append(r.Findings, findings...)
	return err
}

// plainTests is a package without the overlay, compiled when it is first needed:
// most packages never are.
type plainTests struct {
	workspace *Workspace
	pkg       string
	limits
	compiled *binary
}

func (t *plainTests) binary(ctx context.Context) (b *binary, err error) {
	if t.compiled == nil {
		t.compiled, err = t.workspace.compile(ctx, t.pkg, false, t.limits)
	}
	return t.compiled, err
}

func (t *plainTests) all(ctx context.Context) (*results.Run, error) {
	b, err := t.binary(ctx)
	if err != nil {
		return nil, err
	}
	return b.all(ctx, Plain, nil)
}

func (t *plainTests) alone(ctx context.Context, test string) (results.Outcome, string, error) {
	b, err := t.binary(ctx)
	if err != nil {
		return "", "", err
	}
	return b.alone(ctx, Plain, test)
}

func (t *plainTests) discard() {
	if t.compiled != nil {
		t.compiled.discard()
	}
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
