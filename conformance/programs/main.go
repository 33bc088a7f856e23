// The programs command runs the tests of programs that nobody here wrote, on
// channels of scale.NewClient.
//
//	go run ./conformance/programs [flags] [program [packages]]
//
// Without arguments it runs all of them. See docs/compatibility.md for what came
// of it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/davidwartell/go-grpcpool/conformance/internal/command"
	"github.com/davidwartell/go-grpcpool/conformance/internal/results"
	"github.com/davidwartell/go-grpcpool/conformance/internal/rewrite"
	"github.com/davidwartell/go-grpcpool/conformance/internal/suite"
	"github.com/davidwartell/go-grpcpool/conformance/shim"
)

const library = "github.com/davidwartell/go-grpcpool"

func main() {
	os.Exit(command.Run("programs", os.Args[1:], os.Stderr, run))
}

// options are the command's flags.
type options struct {
	cache    string
	verbose  bool
	plan     suite.Plan
	replaced []suite.Module
}

func run(ctx context.Context, args []string) (failed bool, err error) {
	var o options
	f := flag.NewFlagSet("programs", flag.ContinueOnError)
	f.StringVar(&o.cache, "cache", "", "where the copies of the programs are kept (default: in the user's cache)")
	f.BoolVar(&o.verbose, "v", false, "print what tests that differ print")
	f.BoolVar(&o.plan.AllPlain, "plain", false, "run every test on plain channels too, and compare the lists of tests")
	f.IntVar(&o.plan.Parallel, "p", 1, "packages at a time")
	f.IntVar(&o.plan.Attempts, "attempts", 3, "how often a test that differs is run again")
	f.DurationVar(&o.plan.Timeout, "timeout", 10*time.Minute, "for the tests of one package")
	if err := f.Parse(args); err != nil {
		return false, err
	}
	o.plan.Settings = []string{shim.Default}
	o.plan.Patience = o.plan.Timeout // some of etcd's tests take minutes
	if err := o.plan.Check(shim.Default); err != nil {
		return false, err
	}
	chosen := programs
	if name := f.Arg(0); name != "" {
		i := slices.IndexFunc(programs, func(p program) bool { return p.name == name })
		if i < 0 {
			return false, fmt.Errorf("no program is called %q; there are %s", name, names())
		}
		chosen = programs[i : i+1]
		if f.NArg() > 1 {
			chosen[0].packages = f.Args()[1:]
		}
	}
	if err := o.locate(ctx); err != nil {
		return false, err
	}
	for _, p := range chosen {
		differs, err := o.run(ctx, p)
		if err != nil {
			return false, fmt.Errorf("%s: %w", p.name, err)
		}
		failed = failed || differs
	}
	return failed, nil
}

func names() string {
	all := make([]string, 0, len(programs))
	for _, p := range programs {
		all = append(all, p.name)
	}
	return strings.Join(all, ", ")
}

// locate finds the library and this module, from within the repository.
func (o *options) locate(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", library+"/conformance")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("run it within the repository: %w", err)
	}
	here := strings.TrimSpace(string(out))
	o.replaced = []suite.Module{
		{Path: library, Dir: filepath.Dir(here)},
		{Path: library + "/conformance", Dir: here},
	}
	if o.cache == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return err
		}
		o.cache = filepath.Join(cache, "grpcpool-programs")
	}
	return nil
}

// run runs one program's tests and prints what came of them.
func (o *options) run(ctx context.Context, p program) (failed bool, err error) {
	w, err := o.prepare(ctx, p)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	plan := o.plan
	if plan.Packages, err = w.Resolve(ctx, p.packages); err != nil {
		return false, err
	}
	plan.Expected, err = results.ReadList(strings.NewReader(p.expected), shim.Default)
	if err != nil {
		return false, err
	}
	fmt.Printf("%s: %s %s, %d packages\n", p.name, p.tested.path, p.tested.version, len(plan.Packages))
	t := tally{verbose: o.verbose, counts: make(map[results.Outcome]int)}
	plan.Report = t.add
	w.Run(ctx, plan)
	t.print(p.name)
	return t.failed, ctx.Err()
}

func (o *options) prepare(ctx context.Context, p program) (*suite.Workspace, error) {
	tested, err := suite.Download(ctx, p.tested.path, p.tested.version)
	if err != nil {
		return nil, err
	}
	companions := make([]suite.Module, 0, len(p.companions))
	for _, c := range p.companions {
		m, err := suite.Download(ctx, c.path, c.version)
		if err != nil {
			return nil, err
		}
		companions = append(companions, m)
	}
	return suite.PrepareProgram(ctx, suite.Config{
		Tested:   tested,
		Replaced: slices.Clone(o.replaced),
		From:     rewrite.Function{Package: "google.golang.org/grpc", Name: "NewClient"},
		To:       rewrite.Function{Package: library + "/conformance/shim", Name: "NewClient"},
		Variable: shim.Variable,
		Cache:    o.cache,
	}, suite.Program{Companions: companions, Unserved: p.unserved, Without: p.without})
}

// tally is what the packages of a program come to.
type tally struct {
	verbose bool
	failed  bool
	counts  map[results.Outcome]int
}

func (t *tally) add(r suite.Report) {
	fmt.Printf("%-60s %6.1fs\n", r.Package, r.Took.Seconds())
	if run := r.Runs[shim.Default]; run != nil {
		for _, o := range []results.Outcome{results.Passed, results.Failed, results.Skipped, results.Unfinished, results.Crashed} {
			t.counts[o] += run.Count(o)
		}
	}
	for _, f := range r.Findings {
		fmt.Println("  ", f)
		if t.verbose && f.Output != "" {
			fmt.Println(f.Output)
		}
		t.failed = t.failed || f.Kind.Fatal()
	}
	if r.Err != nil {
		fmt.Println("   error:", r.Err)
		t.failed = true
	}
}

func (t *tally) print(name string) {
	verdict := "no unexpected differences"
	if t.failed {
		verdict = "FAILED"
	}
	fmt.Printf("%s: %d tests and subtests passed at the first try, %d did not, %d skipped: %s\n\n", name,
		t.counts[results.Passed], t.counts[results.Failed]+t.counts[results.Unfinished]+t.counts[results.Crashed], t.counts[results.Skipped], verdict)
}
