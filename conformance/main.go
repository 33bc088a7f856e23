// The conformance command runs grpc-go's own tests on channels of scale.NewClient.
//
//	go run ./conformance [flags] [packages]
//
// Packages are grpc-go's, as "./test" or "./balancer/..."; without any, those that
// CI runs. See README.md for what it prints.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/davidwartell/go-grpcpool/conformance/internal/command"
	"github.com/davidwartell/go-grpcpool/conformance/internal/results"
	"github.com/davidwartell/go-grpcpool/conformance/internal/rewrite"
	"github.com/davidwartell/go-grpcpool/conformance/internal/suite"
	"github.com/davidwartell/go-grpcpool/conformance/shim"
)

const (
	library     = "github.com/davidwartell/go-grpcpool"
	conformance = library + "/conformance"
	grpcModule  = "google.golang.org/grpc"
)

// subset is what CI runs: a few minutes on two cores.
var subset = []string{
	"./test", "./test/xds", "./balancer/...", "./internal/xds/balancer/...",
	"./credentials/...", "./orca/...", "./stats/...", "./internal/idle/...",
}

func main() {
	os.Exit(command.Run("conformance", os.Args[1:], os.Stderr, run))
}

// options are the command's flags.
type options struct {
	tree     string
	settings string
	list     string
	cache    string
	verbose  bool
	listOnly bool
	plan     suite.Plan
}

func parse(args []string) (*options, []string, error) {
	var o options
	f := flag.NewFlagSet("conformance", flag.ContinueOnError)
	f.StringVar(&o.tree, "tree", "", "root of the library under test (default: of this module)")
	f.StringVar(&o.settings, "settings", shim.Default+","+shim.One, "what the channels are made with, of "+shim.Default+" and "+shim.One)
	f.StringVar(&o.list, "expected", "", "list of expected differences (default: expected.txt of this module)")
	f.StringVar(&o.cache, "cache", "", "where the copy of grpc-go is kept (default: in the user's cache)")
	f.BoolVar(&o.verbose, "v", false, "print all that tests that differ print")
	f.BoolVar(&o.listOnly, "list", false, "print the packages and what of them is replaced, and end")
	f.BoolVar(&o.plan.AllPlain, "plain", false, "run every test on plain channels too, and compare the lists of tests")
	f.IntVar(&o.plan.Parallel, "p", 2, "packages at a time")
	f.IntVar(&o.plan.Attempts, "attempts", 3, "how often a test that differs is run again")
	f.DurationVar(&o.plan.Timeout, "timeout", 10*time.Minute, "for the tests of one package")
	f.DurationVar(&o.plan.Patience, "patience", 30*time.Second, "until the next test begins or ends")
	if err := f.Parse(args); err != nil {
		return nil, nil, err
	}
	o.plan.Settings = strings.Split(o.settings, ",")
	if err := o.plan.Check(shim.Default, shim.One); err != nil {
		return nil, nil, err
	}
	if f.NArg() == 0 {
		return &o, subset, nil
	}
	return &o, f.Args(), nil
}

func run(ctx context.Context, args []string) (failed bool, err error) {
	o, patterns, err := parse(args)
	if err != nil {
		return false, err
	}
	config, err := o.locate(ctx)
	if err != nil {
		return false, err
	}
	if o.plan.Expected, err = o.expected(); err != nil {
		return false, err
	}
	w, err := suite.Prepare(ctx, config)
	if err != nil {
		return false, err
	}
	defer func() { _ = w.Close() }()
	choice, err := w.Choose(ctx)
	if err != nil {
		return false, err
	}
	var idle []string
	if o.plan.Packages, idle = suite.Select(choice.Packages, patterns); len(idle) > 0 {
		return false, fmt.Errorf("%s of %s: no test there makes a channel that can be replaced", strings.Join(idle, " "), grpcModule)
	}
	printChoice(config.Tested, choice, len(o.plan.Packages))
	if o.listOnly {
		fmt.Println(strings.Join(o.plan.Packages, "\n"))
		return false, nil
	}
	s := &summary{verbose: o.verbose, settings: o.plan.Settings}
	o.plan.Report = s.add
	w.Run(ctx, o.plan)
	return s.print(), ctx.Err()
}

// locate finds the modules: the tested version of grpc-go is that of this module's
// go.mod. The library's own says the oldest.
func (o *options) locate(ctx context.Context) (suite.Config, error) {
	here, err := ownModule(ctx)
	if err != nil {
		return suite.Config{}, err
	}
	if o.tree == "" {
		o.tree = filepath.Dir(here.Dir)
	}
	if o.list == "" {
		o.list = filepath.Join(here.Dir, "expected.txt")
	}
	if o.cache == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return suite.Config{}, err
		}
		o.cache = filepath.Join(cache, "grpcpool-conformance")
	}
	tested, err := suite.Locate(ctx, here.Dir, grpcModule)
	if err != nil {
		return suite.Config{}, err
	}
	tree, err := filepath.Abs(o.tree)
	if err != nil {
		return suite.Config{}, err
	}
	return suite.Config{
		Tested:   tested[0],
		Replaced: []suite.Module{{Path: library, Dir: tree}, here},
		From:     rewrite.Function{Package: grpcModule, Name: "NewClient"},
		To:       rewrite.Function{Package: conformance + "/shim", Name: "NewClient"},
		Variable: shim.Variable,
		Cache:    o.cache,
	}, nil
}

// ownModule is this module, as the go command finds it from the working directory:
// within the module, or within the workspace that it is part of.
func ownModule(ctx context.Context) (suite.Module, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", conformance)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return suite.Module{}, fmt.Errorf("run it within the repository: %w", err)
	}
	return suite.Module{Path: conformance, Dir: strings.TrimSpace(string(out))}, nil
}

// expected reads the list.
func (o *options) expected() (results.List, error) {
	f, err := os.Open(o.list)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	return results.ReadList(f, shim.Default, shim.One)
}
