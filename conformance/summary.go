package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/davidwartell/go-grpcpool/conformance/internal/results"
	"github.com/davidwartell/go-grpcpool/conformance/internal/suite"
)

// printChoice says what runs.
func printChoice(tested suite.Module, choice *suite.Choice, selected int) {
	fmt.Printf("%s %s: %d of %d packages; %d have no test that makes a channel\n",
		tested.Path, tested.Version, selected, len(choice.Packages), choice.Untouched)
	for _, kind := range slices.Sorted(maps.Keys(choice.Mentions)) {
		fmt.Printf("  %d calls replaced: %s\n", choice.Mentions[kind], kind)
	}
	for _, refused := range choice.Refused {
		fmt.Println("  not replaced:", refused)
	}
}

// summary is what a run comes to.
type summary struct {
	verbose  bool
	settings []string
	packages int
	broken   int // packages that could not be run
	counts   map[string]map[results.Outcome]int
	findings []results.Finding
}

// add takes in a package, and prints a line for each run and each finding.
func (s *summary) add(r suite.Report) {
	s.packages++
	fmt.Printf("%-60s %6.1fs\n", r.Package, r.Took.Seconds())
	if s.counts == nil {
		s.counts = make(map[string]map[results.Outcome]int)
	}
	for _, setting := range slices.Sorted(maps.Keys(r.Runs)) {
		if s.counts[setting] == nil {
			s.counts[setting] = make(map[results.Outcome]int)
		}
		for _, o := range []results.Outcome{results.Passed, results.Failed, results.Skipped, results.Unfinished, results.Crashed} {
			s.counts[setting][o] += r.Runs[setting].Count(o)
		}
	}
	if plain := r.Runs[suite.Plain]; plain != nil {
		for _, test := range plain.Odd() {
			fmt.Printf("   on plain channels: %s %s: %s\n", r.Package, test, plain.Outcome(test))
		}
	}
	for _, f := range r.Findings {
		fmt.Println("  ", f)
		fmt.Print(s.excerpt(f.Output))
	}
	s.findings = append(s.findings, r.Findings...)
	if r.Err != nil {
		s.broken++
		fmt.Println("   error:", r.Err)
	}
}

// excerpt is what a test printed: all of it, or what its own file did.
func (s *summary) excerpt(output string) string {
	if s.verbose || output == "" {
		return output
	}
	const most = 10
	var own []string
	for line := range strings.Lines(output) {
		if strings.Contains(line, "_test.go:") {
			own = append(own, line)
		}
	}
	return strings.Join(own[max(0, len(own)-most):], "")
}

// print prints the end of the report and reports whether the run failed.
func (s *summary) print() (failed bool) {
	fmt.Println()
	for _, setting := range slices.Sorted(maps.Keys(s.counts)) {
		c := s.counts[setting]
		fmt.Printf("%s: %d tests and subtests passed at the first try, %d did not, %d skipped\n", setting,
			c[results.Passed], c[results.Failed]+c[results.Unfinished]+c[results.Crashed], c[results.Skipped])
	}
	for _, f := range s.findings {
		if f.Kind.Fatal() {
			fmt.Println(f)
		}
	}
	failed = s.broken > 0
	parts := make([]string, 0, len(s.settings))
	for _, setting := range s.settings {
		n := s.count(setting)
		parts = append(parts, fmt.Sprintf("%s: %d differences, %d expected, %d stale, %d undecided, %d flaked, %d fail plain",
			setting, n[results.Difference], n[results.Expected], n[results.Stale], n[results.Undecided], n[results.Flaked], n[results.FailsPlain]))
		failed = failed || n[results.Difference]+n[results.Stale]+n[results.Undecided] > 0
	}
	verdict := "passed"
	if failed {
		verdict = "FAILED"
	}
	fmt.Printf("conformance %s: %d packages, %d could not be run; %s\n", verdict, s.packages, s.broken, strings.Join(parts, "; "))
	return failed
}

func (s *summary) count(setting string) map[results.Kind]int {
	n := make(map[results.Kind]int)
	for _, f := range s.findings {
		if f.Setting == setting {
			n[f.Kind]++
		}
	}
	return n
}
