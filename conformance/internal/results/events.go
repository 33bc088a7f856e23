// Package results reads what test binaries tell, and judges how a run differs from
// a plain one.
package results

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Outcome is how a test ended.
type Outcome string

// The outcomes. The first three are test2json's words.
const (
	Passed     Outcome = "pass"
	Failed     Outcome = "fail"
	Skipped    Outcome = "skip"
	Unfinished Outcome = "unfinished" // it took too long, and the process was stopped
	Crashed    Outcome = "crash"      // the process ended of its own, before the test did
	Missing    Outcome = "missing"    // the test was not run
)

// Whole stands for the package, where it fails and none of its tests does.
const Whole = "(the package)"

// Run is what one run of a package's tests told.
type Run struct {
	Outcomes map[string]Outcome // by test and subtest
	Output   map[string]string  // what those that did not pass printed
}

// event is a line of test2json.
type event struct {
	Action string `json:"Action"`
	Test   string `json:"Test"`
	Output string `json:"Output"`
}

// Read reads test2json's lines to their end.
func Read(r io.Reader) (*Run, error) {
	run := &Run{Outcomes: make(map[string]Outcome), Output: make(map[string]string)}
	output := make(map[string][]byte)
	for lines := json.NewDecoder(r); ; {
		var e event
		switch err := lines.Decode(&e); {
		case errors.Is(err, io.EOF):
			run.keepOutput(output)
			return run, nil
		case err != nil:
			return nil, fmt.Errorf("results: test2json: %w", err)
		}
		if e.Test == "" {
			e.Test = Whole
		}
		switch e.Action {
		case "run", "start":
			run.Outcomes[e.Test] = Unfinished
		case "pass", "fail", "skip":
			run.Outcomes[e.Test] = Outcome(e.Action)
		case "output":
			output[e.Test] = append(output[e.Test], e.Output...)
		}
	}
}

func (r *Run) keepOutput(output map[string][]byte) {
	for test, text := range output {
		if r.Outcomes[test] != Passed {
			r.Output[test] = string(text)
		}
	}
}

// Outcome is that of a test, Missing when it was not run.
func (r *Run) Outcome(test string) Outcome {
	if o, ok := r.Outcomes[test]; ok {
		return o
	}
	return Missing
}

// End notes how the process ended: its exit code, and whether it was stopped because
// something took too long. Tests that were under way are Crashed if it was not.
func (r *Run) End(code int, stopped bool) {
	cut := r.Count(Unfinished) > 0 || code != 0 && code != 1
	switch {
	case cut && stopped:
		r.Outcomes[Whole] = Unfinished
	case cut:
		for test, o := range r.Outcomes {
			if o == Unfinished {
				r.Outcomes[test] = Crashed
			}
		}
		r.Outcomes[Whole] = Crashed
	case code == 1:
		r.Outcomes[Whole] = Failed
	default:
		r.Outcomes[Whole] = Passed
	}
}

// Cut reports whether the process ended before all tests did.
func (r *Run) Cut() bool { return r.Outcome(Whole).cut() }

func (o Outcome) cut() bool { return o == Unfinished || o == Crashed }

// Odd are the tests that did not pass, in order. A test that failed only since a
// subtest did is not among them. Neither is the package, unless nothing else
// explains its failure: a crash is explained by a test that crashed.
func (r *Run) Odd() []string {
	var odd []string
	for _, test := range slices.Sorted(maps.Keys(r.Outcomes)) {
		if test != Whole && r.Outcomes[test] != Passed && !r.inherited(test) {
			odd = append(odd, test)
		}
	}
	whole := r.Outcome(Whole)
	explains := func(test string) bool {
		return r.Outcomes[test] == whole || whole != Crashed && r.Outcomes[test] != Skipped
	}
	if whole != Passed && whole != Skipped && !slices.ContainsFunc(odd, explains) {
		odd = append(odd, Whole)
	}
	return odd
}

// inherited reports whether a subtest of test explains its outcome.
func (r *Run) inherited(test string) bool {
	for other, o := range r.Outcomes {
		if strings.HasPrefix(other, test+"/") && (o == Failed || o.cut()) {
			return true
		}
	}
	return false
}

// Count counts the tests and subtests with an outcome.
func (r *Run) Count(o Outcome) (n int) {
	for test, got := range r.Outcomes {
		if test != Whole && got == o {
			n++
		}
	}
	return n
}

// Add adds what a further run told, which left out the tests of r that are Odd
// since they ended the process. Those keep their outcomes and what they printed.
func (r *Run) Add(further *Run) {
	culprits := r.Odd()
	for _, test := range culprits {
		further.Outcomes[test] = r.Outcome(test)
		further.Output[test] = r.Output[test]
	}
	*r = *further
}
