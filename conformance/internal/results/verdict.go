package results

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Kind is what a finding is.
type Kind string

// The kinds. The first two fail a run.
const (
	Difference Kind = "difference"  // it passes plain and not here, again and again
	Stale      Kind = "stale"       // an expected difference that did not occur
	Expected   Kind = "expected"    // a difference that is on the list
	Flaked     Kind = "flaked"      // it passed when it was run again
	FailsPlain Kind = "fails plain" // it fails on plain channels too
)

// Fatal reports whether a finding of the kind fails the run.
func (k Kind) Fatal() bool { return k == Difference || k == Stale }

// Finding is something that a reader should know of a test.
type Finding struct {
	Kind    Kind
	Setting string
	Package string
	Test    string
	Detail  string // in one line
	Output  string // what the test printed, if it is a Difference or Flaked
}

// String is the finding in one line.
func (f Finding) String() string {
	return fmt.Sprintf("%s: %s %s (%s): %s", f.Kind, f.Package, f.Test, f.Setting, f.Detail)
}

// Again runs one test alone, and returns how it ended and what it printed.
type Again func(test string) (Outcome, string, error)

// Judge compares a package's run with a plain one. A test that is odd in the run is
// run again, alone, and on plain channels, up to Attempts times each: only what
// fails each time here, and not each time there, is a difference. The expected
// differences are no part of the run; they are run alone.
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
	for _, test := range odd {
		finding, err := j.examine(test, ours.Outcome(test), ours.Output[test])
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

// examine judges a test that is odd and not expected to be. It returns nil for one
// that is as odd on plain channels, without failing: skipped in both.
func (j *Judge) examine(test string, first Outcome, output string) (*Finding, error) {
	plain, _, err := j.Plain(test)
	if err != nil {
		return nil, err
	}
	if plain == first && first == Skipped {
		return nil, nil //nolint:nilnil // nothing to tell
	}
	outcomes := []Outcome{first}
	for range j.Attempts {
		again, printed, err := j.Ours(test)
		if err != nil {
			return nil, err
		}
		if again == Passed {
			f := j.finding(Flaked, test, fmt.Sprintf("%v, then pass", outcomes))
			f.Output = output
			return &f, nil
		}
		outcomes = append(outcomes, again)
		if printed != "" {
			output = printed
		}
	}
	for i := 1; plain != Passed && i < j.Attempts; i++ {
		if plain, _, err = j.Plain(test); err != nil {
			return nil, err
		}
	}
	if plain != Passed {
		f := j.finding(FailsPlain, test, fmt.Sprintf("%v here, %s plain", outcomes, plain))
		return &f, nil
	}
	f := j.finding(Difference, test, fmt.Sprintf("%v here, pass plain", outcomes))
	f.Output = output
	return &f, nil
}

// expected looks whether an expected difference still occurs. Once is enough.
func (j *Judge) expected(entry Entry) (Finding, error) {
	for range j.Attempts {
		switch outcome, _, err := j.Ours(entry.Test); {
		case err != nil:
			return Finding{}, err
		case outcome == Missing:
			return j.finding(Stale, entry.Test, "there is no such test: take it off the list"), nil
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
