package results_test

import (
	"errors"
	"testing"

	"github.com/davidwartell/go-grpcpool/conformance/internal/results"
	"github.com/google/go-cmp/cmp"
)

// outcomes are how a test ends when it is run again, one after the other, and then
// as the last one for ever.
type outcomes map[string][]results.Outcome

func (o outcomes) again(test string) (results.Outcome, string, error) {
	list := o[test]
	if len(list) == 0 {
		return results.Passed, "", nil
	}
	if len(list) > 1 {
		o[test] = list[1:]
	}
	return list[0], "printed", nil
}

const (
	pass    = results.Passed
	fail    = results.Failed
	skip    = results.Skipped
	missing = results.Missing
)

func TestADifferenceIsWhatFailsHereAndNotPlain(t *testing.T) {
	for name, c := range map[string]struct {
		first       []string
		ours, plain []results.Outcome // when run again
		want        results.Kind      // empty: nothing to tell
	}{
		"fails here again and again":      {first: []string{"fail A", "fail"}, ours: []results.Outcome{fail}, want: results.Difference},
		"fails here once":                 {first: []string{"fail A", "fail"}, ours: []results.Outcome{fail, fail, pass}, want: results.Flaked},
		"fails plain too":                 {first: []string{"fail A", "fail"}, ours: []results.Outcome{fail}, plain: []results.Outcome{fail}, want: results.FailsPlain},
		"fails plain once":                {first: []string{"fail A", "fail"}, ours: []results.Outcome{fail}, plain: []results.Outcome{fail, pass}, want: results.Difference},
		"does not end":                    {first: []string{"run A", "fail"}, ours: []results.Outcome{results.Unfinished}, want: results.Difference},
		"is skipped here":                 {first: []string{"skip A", "pass"}, ours: []results.Outcome{skip}, want: results.Difference},
		"is skipped in both":              {first: []string{"skip A", "pass"}, ours: []results.Outcome{skip}, plain: []results.Outcome{skip}},
		"is skipped plain and fails here": {first: []string{"fail A", "fail"}, ours: []results.Outcome{fail}, plain: []results.Outcome{skip}, want: results.FailsPlain},
	} {
		t.Run(name, func(t *testing.T) {
			j := results.Judge{Setting: "one", Package: "./p", Attempts: 3, Ours: outcomes{"A": c.ours}.again, Plain: outcomes{"A": c.plain}.again}
			findings, err := j.Judge(read(t, c.first...), nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.want == "" && len(findings) == 0 {
				return
			}
			if len(findings) != 1 || findings[0].Kind != c.want || findings[0].Test != "A" || findings[0].Setting != "one" || findings[0].Package != "./p" {
				t.Errorf("findings %v, want one %s", findings, c.want)
			}
		})
	}
}

func TestAnExpectedDifferenceMustOccur(t *testing.T) {
	for name, c := range map[string]struct {
		sometimes bool
		ours      []results.Outcome
		want      results.Kind
	}{
		"it does":                    {ours: []results.Outcome{fail}, want: results.Expected},
		"it does not end":            {ours: []results.Outcome{results.Unfinished}, want: results.Expected},
		"it does at the third time":  {ours: []results.Outcome{pass, pass, fail}, want: results.Expected},
		"it passes":                  {ours: []results.Outcome{pass}, want: results.Stale},
		"it passes, as it sometimes": {sometimes: true, ours: []results.Outcome{pass}, want: results.Expected},
		"it is gone":                 {ours: []results.Outcome{missing}, want: results.Stale},
		"it is gone for all times":   {sometimes: true, ours: []results.Outcome{missing}, want: results.Stale},
	} {
		t.Run(name, func(t *testing.T) {
			j := results.Judge{
				Setting: "one", Package: "./p", Attempts: 3, Ours: outcomes{"A": c.ours}.again, Plain: outcomes{}.again,
				Expected: results.List{
					{Setting: results.Both, Package: "./p", Test: "A", Sometimes: c.sometimes, Reason: "why"},
					{Setting: "default", Package: "./p", Test: "B", Reason: "another setting"},
					{Setting: results.Both, Package: "./q", Test: "C", Reason: "another package"},
				},
			}
			findings, err := j.Judge(read(t, "pass D", "pass"), nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(findings) != 1 || findings[0].Kind != c.want {
				t.Errorf("findings %v, want one %s", findings, c.want)
			}
		})
	}
}

func TestATestThatIsNotRunIsADifference(t *testing.T) {
	j := results.Judge{
		Setting: "one", Package: "./p", Attempts: 2,
		Ours:     outcomes{"A/gone": {missing}, "E": {fail}, "B": {fail}}.again,
		Plain:    outcomes{}.again,
		Expected: results.List{{Setting: "one", Package: "./p", Test: "E", Reason: "why"}},
	}
	findings, err := j.Judge(
		read(t, "pass A", "fail B", "fail"),
		read(t, "pass A", "pass A/gone", "pass B", "pass B/never_reached", "pass E", "pass E/sub", "pass"))
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(map[string]results.Kind)
	for _, f := range findings {
		kinds[f.Test] = f.Kind
	}
	want := map[string]results.Kind{"A/gone": results.Difference, "B": results.Difference, "E": results.Expected}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Error(diff)
	}
}

func TestOnlyDifferencesAndStaleEntriesFailARun(t *testing.T) {
	for kind, want := range map[results.Kind]bool{
		results.Difference: true, results.Stale: true,
		results.Expected: false, results.Flaked: false, results.FailsPlain: false,
	} {
		if kind.Fatal() != want {
			t.Errorf("%s: fatal is %v", kind, !want)
		}
	}
}

func TestATestThatCannotBeRunAgainEndsTheJudgement(t *testing.T) {
	broken := errors.New("no such file")
	again := func(string) (results.Outcome, string, error) { return "", "", broken }
	j := results.Judge{Setting: "one", Package: "./p", Attempts: 2, Ours: again, Plain: again}
	if _, err := j.Judge(read(t, "fail A", "fail"), nil); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}
