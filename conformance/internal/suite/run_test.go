package suite_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool/conformance/internal/results"
	"github.com/davidwartell/go-grpcpool/conformance/internal/suite"
	"github.com/google/go-cmp/cmp"
)

// high replaces the tests of the package high.
func high(tests string) map[string]string {
	return map[string]string{
		"rpc/high/inside_test.go":  "package high\n\nimport (\n\t\"os\"\n\t\"testing\"\n\n\t\"example.com/rpc\"\n)\n" + tests,
		"rpc/high/outside_test.go": "package high_test\n",
	}
}

// runHigh runs it with one setting and returns its report.
func runHigh(t *testing.T, w *suite.Workspace, timeout time.Duration, expected ...string) (report suite.Report) {
	t.Helper()
	if _, err := w.Choose(t.Context()); err != nil {
		t.Fatal(err)
	}
	plan := suite.Plan{
		Packages: []string{"./high"},
		Settings: []string{"default"},
		Attempts: 1,
		Parallel: 1,
		Timeout:  timeout,
		Patience: 3 * time.Second,
		Report:   func(r suite.Report) { report = r },
	}
	for _, test := range expected {
		plan.Expected = append(plan.Expected, results.Entry{Setting: results.Both, Package: "./high", Test: test, Reason: "why"})
	}
	w.Run(t.Context(), plan)
	return report
}

func TestNothingThatTestsLeaveStays(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	w := prepare(t, high(`
func TestLeavesAFolder(t *testing.T) {
	if _, err := os.MkdirTemp("", "left-"); err != nil {
		t.Fatal(err)
	}
	if rpc.NewClient() != "plain" {
		t.Error("so that the plain binary is needed")
	}
}
`))
	if report := runHigh(t, w, time.Minute); report.Err != nil || len(report.Findings) != 1 || report.Findings[0].Kind != results.Difference {
		t.Errorf("report: %+v", report)
	}
	binaries, err := filepath.Glob(filepath.Join(temporary, "*", "*high*"))
	if err != nil || len(binaries) != 0 {
		t.Errorf("binaries %q stay until the end, error %v", binaries, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(temporary)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, error %v", left, err)
	}
}

func TestAPackageIsRunAgainWithoutItsExpectedDifferences(t *testing.T) {
	report := runHigh(t, prepare(t, high(`
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 && rpc.NewClient() != "plain" {
		code = 1
	}
	os.Exit(code)
}

func TestEndless(*testing.T) {
	if rpc.NewClient() != "plain" {
		select {}
	}
}
`)), time.Minute, "TestEndless")
	got := make([]string, 0, len(report.Findings))
	for _, f := range report.Findings {
		got = append(got, f.String())
	}
	want := []string{
		"difference: ./high (the package) (default): [fail fail] here, [pass] plain",
		"expected: ./high TestEndless (default): why",
	}
	if diff := cmp.Diff(want, got); diff != "" || report.Err != nil {
		t.Errorf("error %v, findings %s", report.Err, diff)
	}
}

func TestTestsThatAreNeverReachedAreAnError(t *testing.T) {
	var tests strings.Builder
	tests.WriteString("\nvar _ = os.Args\n")
	for _, name := range []string{"A", "B", "C", "D", "E", "F", "G"} {
		tests.WriteString("\nfunc Test" + name + "(*testing.T) {\n\tif rpc.NewClient() != \"plain\" {\n\t\tpanic(1)\n\t}\n}\n")
	}
	report := runHigh(t, prepare(t, high(tests.String())), time.Minute)
	if report.Err == nil || !strings.Contains(report.Err.Error(), "some were never run") || !strings.Contains(report.Err.Error(), "TestA, TestB") {
		t.Errorf("error %v", report.Err)
	}
	if len(report.Findings) != 6 { // those that were run are judged
		t.Errorf("findings: %v", report.Findings)
	}
}

// The test binary ends itself then, by a panic.
func TestATestThatOutlivesTheTimeoutIsNoCrash(t *testing.T) {
	report := runHigh(t, prepare(t, high(`
var _ = os.Args

func TestEndless(*testing.T) {
	if rpc.NewClient() != "plain" {
		select {}
	}
}
`)), 2*time.Second)
	want := "difference: ./high TestEndless (default): [unfinished unfinished] here, [pass] plain"
	if len(report.Findings) != 1 || report.Findings[0].String() != want {
		t.Errorf("error %v, findings %v, want %s", report.Err, report.Findings, want)
	}
}

func TestAPlanThatProvesNothingIsRefused(t *testing.T) {
	good := suite.Plan{Settings: []string{"one"}, Parallel: 1, Attempts: 1, Timeout: time.Minute, Patience: time.Minute}
	if err := good.Check("default", "one"); err != nil {
		t.Error(err)
	}
	for want, spoil := range map[string]func(*suite.Plan){
		"packages at a time: 0":          func(p *suite.Plan) { p.Parallel = 0 },
		"packages at a time: -1":         func(p *suite.Plan) { p.Parallel = -1 },
		"attempts: 0":                    func(p *suite.Plan) { p.Attempts = 0 },
		"timeout 0s":                     func(p *suite.Plan) { p.Timeout = 0 },
		"patience -1ns":                  func(p *suite.Plan) { p.Patience = -1 },
		"no setting":                     func(p *suite.Plan) { p.Settings = nil },
		`"two" is no setting`:            func(p *suite.Plan) { p.Settings = []string{"one", "two"} },
		`setting "one" is given twice`:   func(p *suite.Plan) { p.Settings = []string{"one", "one"} },
		`"" is no setting; there are de`: func(p *suite.Plan) { p.Settings = []string{""} },
	} {
		plan := good
		spoil(&plan)
		if err := plan.Check("default", "one"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}
