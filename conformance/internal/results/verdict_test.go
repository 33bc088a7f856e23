package results_test

import (
	"errors"
	"maps"
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
	hang    = results.Unfinished
	crash   = results.Crashed
)

func TestADifferenceIsWhatFailsHereAndNotPlain(t *testing.T) {
	for name, c := range map[string]struct {
		first       []string
		crashed     bool              // the first run did
		ours, plain []results.Outcome // when run alone
		want        results.Kind      // empty: nothing to tell
	}{
		"fails here again and again":      {first: []string{"fail A", "fail"}, ours: []results.Outcome{fail}, want: results.Difference},
		"fails here once":                 {first: []string{"fail A", "fail"}, ours: []results.Outcome{pass}, want: results.Flaked},
		"fails here every other time":     {first: []string{"fail A", "fail"}, ours: []results.Outcome{pass, fail, pass}, want: results.Flaked},
		"fails here three times of four":  {first: []string{"fail A", "fail"}, ours: []results.Outcome{pass, fail}, want: results.Difference},
		"often fails here and once plain": {first: []string{"fail A", "fail"}, ours: []results.Outcome{fail, pass, fail}, plain: []results.Outcome{pass, fail, pass}, want: results.Flaked},
		"often fails here, always plain":  {first: []string{"fail A", "fail"}, ours: []results.Outcome{fail, pass, fail}, plain: []results.Outcome{fail}, want: results.FailsPlain},
		"fails here and crashes plain":    {first: []string{"fail A", "fail"}, ours: []results.Outcome{fail}, plain: []results.Outcome{crash}, want: results.Undecided},
		"fails here and hangs plain once": {first: []string{"fail A", "fail"}, ours: []results.Outcome{fail}, plain: []results.Outcome{fail, fail, hang}, want: results.Undecided},
		"is not there plain":              {first: []string{"fail A", "fail"}, ours: []results.Outcome{fail}, plain: []results.Outcome{missing}, want: results.Undecided},
		"crashed once":                    {first: []string{"run A"}, crashed: true, ours: []results.Outcome{pass}, want: results.Difference},
		"crashed when run again":          {first: []string{"fail A", "fail"}, ours: []results.Outcome{pass, crash, pass}, want: results.Difference},
		"crashed here and fails plain":    {first: []string{"run A"}, crashed: true, ours: []results.Outcome{pass}, plain: []results.Outcome{fail}, want: results.Difference},
		"crashes in both":                 {first: []string{"run A"}, crashed: true, ours: []results.Outcome{crash}, plain: []results.Outcome{crash}, want: results.Undecided},
		"took too long once":              {first: []string{"run A", "fail"}, ours: []results.Outcome{pass}, want: results.Flaked},
		"took too long, and then failed":  {first: []string{"run A", "fail"}, ours: []results.Outcome{pass, fail, pass}, want: results.Difference},
		"fails plain too":                 {first: []string{"fail A", "fail"}, ours: []results.Outcome{fail}, plain: []results.Outcome{fail}, want: results.FailsPlain},
		"fails plain once":                {first: []string{"fail A", "fail"}, ours: []results.Outcome{fail}, plain: []results.Outcome{fail, pass}, want: results.Difference},
		"does not end":                    {first: []string{"run A", "fail"}, ours: []results.Outcome{hang}, want: results.Difference},
		"is skipped here":                 {first: []string{"skip A", "pass"}, ours: []results.Outcome{skip}, want: results.Difference},
		"is skipped in both":              {first: []string{"skip A", "pass"}, ours: []results.Outcome{skip}, plain: []results.Outcome{skip}},
		"is skipped plain and fails here": {first: []string{"fail A", "fail"}, ours: []results.Outcome{fail}, plain: []results.Outcome{skip}, want: results.FailsPlain},
	} {
		t.Run(name, func(t *testing.T) {
			j := results.Judge{Setting: "one", Package: "./p", Attempts: 3, Ours: outcomes{"A": c.ours}.again, Plain: outcomes{"A": c.plain}.again}
			run := read(t, c.first...)
			if c.crashed {
				run.End(2, false)
			}
			findings, err := j.Judge(run, nil)
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
		"it does not end":            {ours: []results.Outcome{hang}, want: results.Expected},
		"it is skipped":              {ours: []results.Outcome{skip}, want: results.Stale},
		"it is skipped at all times": {sometimes: true, ours: []results.Outcome{skip}, want: results.Stale},
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

// A name with a port in it is another one in each run.
func TestTheTestAroundOneWithoutALastingNameIsJudged(t *testing.T) {
	for name, c := range map[string]struct {
		first []string
		again outcomes
		plain outcomes
		want  []string
	}{
		"it fails each time": {
			first: []string{"run A", "fail A/:1", "fail A/:2", "fail A", "fail"},
			again: outcomes{"A": {fail}},
			want:  []string{"difference A"},
		},
		"two around it": {
			first: []string{"fail A/:1/x", "fail A/:1", "fail A", "fail"},
			again: outcomes{"A": {fail}},
			plain: outcomes{"A/:1/x": {missing}},
			want:  []string{"difference A"},
		},
		"it fails in both": {
			first: []string{"fail A/:1", "fail A", "fail"},
			again: outcomes{"A": {fail}},
			plain: outcomes{"A": {fail}},
			want:  []string{"fails plain A"},
		},
		"it failed once": {
			first: []string{"fail A/:1", "fail A", "fail"},
			want:  []string{"flaked A"},
		},
		"it is skipped": {
			first: []string{"skip A/:1", "pass A", "pass"},
			want:  []string{"flaked A/:1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			plain := outcomes{"A/:1": {missing}, "A/:2": {missing}}
			maps.Copy(plain, c.plain)
			j := results.Judge{Setting: "one", Package: "./p", Attempts: 3, Ours: c.again.again, Plain: plain.again}
			findings, err := j.Judge(read(t, c.first...), nil)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]string, 0, len(findings))
			for _, f := range findings {
				got = append(got, string(f.Kind)+" "+f.Test)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOnlySomeKindsFailARun(t *testing.T) {
	for kind, want := range map[results.Kind]bool{
		results.Difference: true, results.Stale: true, results.Undecided: true,
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
