package results_test

import (
	"strings"
	"testing"

	"github.com/davidwartell/go-grpcpool/conformance/internal/results"
	"github.com/google/go-cmp/cmp"
)

// read reads test2json's lines, given without their braces' noise.
func read(t *testing.T, lines ...string) *results.Run {
	t.Helper()
	var text strings.Builder
	for _, line := range lines {
		action, test, _ := strings.Cut(line, " ")
		test, output, _ := strings.Cut(test, " ")
		text.WriteString(`{"Action":"` + action + `","Test":"` + test + `","Output":"` + output + `"}` + "\n")
	}
	run, err := results.Read(strings.NewReader(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func TestOutcomesAreThoseThatTest2jsonTells(t *testing.T) {
	run := read(t, "start", "run A", "output A hello", "pass A", "run B", "output B why", "fail B",
		"run C", "skip C", "run D", "output D stuck", "fail")
	want := map[string]results.Outcome{
		results.Whole: results.Failed,
		"A":           results.Passed, "B": results.Failed, "C": results.Skipped, "D": results.Unfinished,
	}
	if diff := cmp.Diff(want, run.Outcomes); diff != "" {
		t.Error(diff)
	}
	if got := run.Outcome("E"); got != results.Missing {
		t.Errorf("a test that was not run: %s", got)
	}
	if diff := cmp.Diff(map[string]string{"B": "why", "D": "stuck"}, run.Output); diff != "" {
		t.Error("output is kept of what did not pass:", diff)
	}
}

func TestAFailureIsItsInnermostTests(t *testing.T) {
	for name, c := range map[string]struct{ lines, want []string }{
		"a subtest":                        {lines: []string{"fail Test", "fail Test/A", "pass Test/B", "fail Test/A/x", "fail"}, want: []string{"Test/A/x"}},
		"one whose name begins another's":  {lines: []string{"fail Test/A", "fail Test/AB"}, want: []string{"Test/A", "Test/AB"}},
		"one that did not end":             {lines: []string{"run Test", "run Test/A", "fail"}, want: []string{"Test/A"}},
		"a skipped one":                    {lines: []string{"pass Test", "skip Test/A", "pass"}, want: []string{"Test/A"}},
		"the package, but no test":         {lines: []string{"pass A", "skip B", "fail"}, want: []string{"B", results.Whole}},
		"a package that ended on its own":  {lines: []string{"start", "pass A"}, want: []string{results.Whole}},
		"a parent with skipped and failed": {lines: []string{"fail Test", "skip Test/A", "pass"}, want: []string{"Test", "Test/A"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, read(t, c.lines...).Odd()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTheRestOfACrashedRunIsAdded(t *testing.T) {
	run := read(t, "run Test", "pass Test/A", "run Test/B", "output Test/B panic", "fail")
	run.Add(read(t, "run Test", "pass Test/A", "pass Test/C", "pass Test", "pass"))
	want := map[string]results.Outcome{
		results.Whole: results.Passed,
		"Test":        results.Passed, "Test/A": results.Passed, "Test/B": results.Unfinished, "Test/C": results.Passed,
	}
	if diff := cmp.Diff(want, run.Outcomes); diff != "" {
		t.Error(diff)
	}
	if run.Output["Test/B"] != "panic" {
		t.Errorf("the culprit printed %q", run.Output["Test/B"])
	}
}

func TestTheEndOfTheProcessTellsACrashFromAStop(t *testing.T) {
	for name, c := range map[string]struct {
		lines       []string
		code        int
		stopped     bool
		test, whole results.Outcome
		odd         []string
	}{
		"it passed":                      {lines: []string{"pass A"}, test: pass, whole: pass},
		"it failed":                      {lines: []string{"fail A"}, code: 1, test: fail, whole: fail, odd: []string{"A"}},
		"a panic":                        {lines: []string{"run A"}, code: 2, test: crash, whole: crash, odd: []string{"A"}},
		"os.Exit in a test":              {lines: []string{"run A"}, code: 1, test: crash, whole: crash, odd: []string{"A"}},
		"a panic between tests":          {lines: []string{"pass A"}, code: 2, test: pass, whole: crash, odd: []string{results.Whole}},
		"a failure before such a panic":  {lines: []string{"fail A"}, code: 2, test: fail, whole: crash, odd: []string{"A", results.Whole}},
		"a signal":                       {lines: []string{"run A"}, code: -1, test: crash, whole: crash, odd: []string{"A"}},
		"stopped in a test":              {lines: []string{"run A"}, code: 2, stopped: true, test: hang, whole: hang, odd: []string{"A"}},
		"stopped after all tests":        {lines: []string{"pass A"}, code: 2, stopped: true, test: pass, whole: hang, odd: []string{results.Whole}},
		"passed as it was to be stopped": {lines: []string{"pass A"}, stopped: true, test: pass, whole: pass},
	} {
		t.Run(name, func(t *testing.T) {
			run := read(t, append([]string{"start"}, c.lines...)...)
			delete(run.Outcomes, results.Whole)
			run.End(c.code, c.stopped)
			if run.Outcome("A") != c.test || run.Outcome(results.Whole) != c.whole {
				t.Errorf("the test: %s, the package: %s; want %s, %s", run.Outcome("A"), run.Outcome(results.Whole), c.test, c.whole)
			}
			if run.Cut() != (c.whole == crash || c.whole == hang) {
				t.Errorf("cut: %v", run.Cut())
			}
			if diff := cmp.Diff(c.odd, run.Odd()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestGarbageIsNoRun(t *testing.T) {
	if _, err := results.Read(strings.NewReader("garbage")); err == nil {
		t.Error("it was read")
	}
}

func TestAListIsReadWithItsReasons(t *testing.T) {
	list, err := results.ReadList(strings.NewReader(`# a comment

both ./test Test/A
	It rests on
	one connection.
one sometimes . Test/B
	Its time is short.
`), "default", "one")
	if err != nil {
		t.Fatal(err)
	}
	want := results.List{
		{Setting: "both", Package: "./test", Test: "Test/A", Reason: "It rests on one connection."},
		{Setting: "one", Sometimes: true, Package: ".", Test: "Test/B", Reason: "Its time is short."},
	}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want[:1], list.Of("default", "./test")); diff != "" {
		t.Error("of a package:", diff)
	}
}

func TestAListThatLacksSomethingIsRefused(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"both ./test Test/A", "no reason"},
		{"\ta reason", "line 1: a reason without an entry"},
		{"both ./test", "line 1"},
		{"two ./test Test/A\n\twhy", `"two" is no setting`},
		{"both ./a T\n\twhy\none ./a T/sub\n\twhy", "expected twice"},
		{"default ./a T\n\twhy\nboth ./a T\n\tagain", "expected twice"},
	} {
		if _, err := results.ReadList(strings.NewReader(c.text), "default", "one"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v, want one with %q", c.text, err, c.want)
		}
	}
}
