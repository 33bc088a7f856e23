package results

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Kind is what a finding is.
type Kind string

// The kinds. The first three fail a run.
const (
	Difference Kind = "difference"  // it fails here, and passes plain
	Stale      Kind = "stale"       // an expected difference that did not occur
	Undecided  Kind = "undecided"   // it fails here, and plain channels could not be asked
	Expected   Kind = "expected"    // a difference that is on the list
	Flaked     Kind = "flaked"      // it passes as often as not when it is run again
	FailsPlain Kind = "fails plain" // it fails on plain channels too
)

// Fatal reports whether a finding of the kind fails the run.
func (k Kind) Fatal() bool { return k == Difference || k == Stale || k == Undecided }

// Finding is something that a reader should know of a test.
type Finding struct {
	Kind    Kind
	Setting string
	Package string
	Test    string
	Detail  string // in one line
	Output  string // what the test printed, if it is fatal or Flaked
}

// String is the finding in one line.
func (f Finding) String() string {
	return fmt.Sprintf("%s: %s %s (%s): %s", f.Kind, f.Package, f.Test, f.Setting, f.Detail)
}

// Again runs one test alone, and returns how it ended and what it printed.
type Again func(test string) (Outcome, string, error)

// Judge compares a package's run with a plain one. A test that is odd in the run is
// run again, alone, Attempts times, and as often on plain channels if it fails more
// often than not. The expected differences are no part of the run; they are run
// alone.
type Judge struct {
	Setting  string
	Package  string
	Expected List // all of them
	Attempts int
	Ours     Again
	Plain    Again
}

// Judge returns the findings. plain is a whole plain run if there was one, else
// nil: then a test that ours left out without failing is not noticed.
func (j *Judge) Judge(ours, plain *Run) ([]Finding, error) {
	odd := ours.Odd()
	if plain != nil {
		odd = append(odd, j.absent(ours, plain)...)
	}
	var findings []Finding
	examined := make(map[string]bool)
	for _, test := range odd {
		name, first, err := j.lasting(test)
		if err != nil {
			return nil, err
		}
		if examined[name] {
			continue
		}
		examined[name] = true
		if name != test && ours.Outcome(name) == Passed {
			findings = append(findings, j.finding(Flaked, test,
				fmt.Sprintf("%s here; no run has its name again, and %s passes", ours.Outcome(test), name)))
			continue
		}
		finding, err := j.examine(name, ours, first)
		if err != nil {
			return nil, err
		}
		if finding != nil {
			findings = append(findings, *finding)
		}
	}
	for _, entry := range j.Expected.Of(j.Setting, j.Package) {
		finding, err := j.expected(entry)
		if err != nil {
			return nil, err
		}
		findings = append(findings, finding)
	}
	return findings, nil
}

// absent are the tests of the plain run that ours did not come to, and whose
// absence neither a failure nor the list explains.
func (j *Judge) absent(ours, plain *Run) (tests []string) {
	odd := ours.Odd()
	explained := func(test string) bool {
		return slices.ContainsFunc(odd, func(o string) bool { return o == Whole || strings.HasPrefix(test, o+"/") })
	}
	for _, test := range slices.Sorted(maps.Keys(plain.Outcomes)) {
		if ours.Outcome(test) == Missing && !explained(test) && !j.Expected.covers(j.Setting, j.Package, test) {
			tests = append(tests, test)
		}
	}
	return tests
}

// lasting is the test to run in place of one whose name differs from run to run:
// the innermost one around it that plain channels come to. plain is how it ended
// there.
func (j *Judge) lasting(test string) (name string, plain Outcome, err error) {
	for name = test; ; {
		plain, _, err = j.Plain(name)
		end := strings.LastIndexByte(name, '/')
		if err != nil || plain != Missing || end < 0 {
			return name, plain, err
		}
		name = name[:end]
	}
}

// examine judges a test that is odd and not expected to be. plain is how it ended on
// plain channels. It returns nil for one that is skipped in both.
func (j *Judge) examine(test string, run *Run, plain Outcome) (*Finding, error) {
	first := run.Outcome(test)
	if plain == first && first == Skipped {
		return nil, nil //nolint:nilnil // nothing to tell
	}
	output := run.Output[test]
	ours := []Outcome{first}
	for range j.Attempts {
		again, printed, err := j.Ours(test)
		if err != nil {
			return nil, err
		}
		ours = append(ours, again)
		if again != Passed && printed != "" {
			output = printed
		}
	}
	there := []Outcome{plain}
	for !flaky(ours) && len(there) < j.Attempts {
		again, _, err := j.Plain(test)
		if err != nil {
			return nil, err
		}
		there = append(there, again)
	}
	f := j.finding(verdict(ours, there), test, fmt.Sprintf("%v here, %v plain", ours, there))
	if f.Kind != FailsPlain {
		f.Output = output
	}
	return &f, nil
}

// flaky reports whether a test need not be compared with plain channels: it passes
// as often as not. One that was stopped for taking too long is excused only if it
// always passes alone, as the machine may have been busy. A crash has no excuse.
func flaky(ours []Outcome) bool {
	failed := len(ours) - count(ours, Passed)
	switch {
	case slices.Contains(ours, Crashed):
		return false
	case ours[0] == Unfinished:
		return failed == 1
	}
	return 2*failed <= len(ours)
}

// verdict compares how a test ended here and there, each time.
func verdict(ours, plain []Outcome) Kind {
	passed := count(plain, Passed)
	switch {
	case flaky(ours):
		return Flaked
	case slices.ContainsFunc(plain, func(o Outcome) bool { return o.cut() || o == Missing }):
		return Undecided
	case slices.Contains(ours, Crashed), passed == len(plain):
		return Difference
	case passed == 0:
		return FailsPlain
	case count(ours, Passed) == 0: // it never passes here, and can there
		return Difference
	}
	return Flaked
}

func count(outcomes []Outcome, o Outcome) (n int) {
	for _, got := range outcomes {
		if got == o {
			n++
		}
	}
	return n
}

// expected looks whether an expected difference still occurs. Once is enough.
func (j *Judge) expected(entry Entry) (Finding, error) {
	for range j.Attempts {
		switch outcome, _, err := j.Ours(entry.Test); {
		case err != nil:
			return Finding{}, err
		case outcome == Missing:
			return j.finding(Stale, entry.Test, "there is no such test: take it off the list"), nil
		case outcome == Skipped:
			return j.finding(Stale, entry.Test, "it is skipped: take it off the list"), nil
		case outcome != Passed:
			return j.finding(Expected, entry.Test, entry.Reason), nil
		}
	}
	if entry.Sometimes {
		return j.finding(Expected, entry.Test, "not this time. "+entry.Reason), nil
	}
	return j.finding(Stale, entry.Test, "it passes: take it off the list"), nil
}

func (j *Judge) finding(kind Kind, test, detail string) Finding {
	return Finding{Kind: kind, Setting: j.Setting, Package: j.Package, Test: test, Detail: detail}
}
