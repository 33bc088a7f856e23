package suite_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool/conformance/internal/results"
	"github.com/davidwartell/go-grpcpool/conformance/internal/rewrite"
	"github.com/davidwartell/go-grpcpool/conformance/internal/suite"
	"github.com/google/go-cmp/cmp"
)

const variable = "CONFORMANCE_TEST_SETTING"

// files are two small modules: example.com/rpc, whose tests run, and
// example.com/shim, which takes the place of its NewClient and depends on its
// package low.
var files = map[string]string{
	"rpc/go.mod":             "module example.com/rpc\n\ngo 1.26\n",
	"rpc/rpc.go":             "package rpc\n\nimport \"example.com/rpc/low\"\n\nfunc NewClient() string { return low.Plain }\n",
	"rpc/low/low.go":         "package low\n\nconst Plain = \"plain\"\n",
	"rpc/low/inside_test.go": "package low\n\nimport \"testing\"\n\nfunc TestLow(*testing.T) {}\n",
	"rpc/own/own.go":         "package own\n\nimport \"example.com/rpc\"\n\nvar Client = rpc.NewClient()\n",
	"rpc/own/own_test.go": `package own

import "testing"

func TestTheModulesOwnCallsStay(t *testing.T) {
	if Client != "plain" {
		t.Error(Client)
	}
}
`,
	"rpc/internal/helper/helper.go": "package helper\n\nimport \"example.com/rpc\"\n\nfunc Client() string { return rpc.NewClient() }\n",
	"rpc/high/high.go":              "package high\n",
	"rpc/high/inside_test.go": `package high

import (
	"os"
	"testing"

	"example.com/rpc"
)

func TestPlainOnly(t *testing.T) {
	if got := rpc.NewClient(); got != "plain" {
		t.Error(got)
	}
}

func TestSettings(t *testing.T) {
	want := os.Getenv("` + variable + `")
	if got := rpc.NewClient(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	t.Run("of one", func(t *testing.T) {
		if rpc.NewClient() == "one" {
			t.Skip()
		}
	})
}
`,
	"rpc/high/outside_test.go": `package high_test

import (
	"testing"

	"example.com/rpc/internal/helper"
)

func TestHang(t *testing.T) {
	if helper.Client() == "one" {
		select {}
	}
}

func TestPanic(t *testing.T) {
	if helper.Client() != "plain" {
		panic("no plain client")
	}
}
`,
	"shim/go.mod": "module example.com/shim\n\ngo 1.26\n\nrequire example.com/rpc v0.0.0\n",
	"shim/shim.go": `package shim

import (
	"os"

	_ "example.com/rpc"
)

func NewClient() string { return os.Getenv("` + variable + `") }
`,
}

// write writes files, and more, to a new folder.
func write(t *testing.T, more map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	all := maps.Clone(files)
	maps.Copy(all, more)
	for name, text := range all {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// prepare writes the modules and prepares to run their tests.
func prepare(t *testing.T, more map[string]string) *suite.Workspace {
	t.Helper()
	dir := write(t, more)
	w, err := suite.Prepare(t.Context(), suite.Config{
		Tested:   suite.Module{Path: "example.com/rpc", Version: "v1.0.0", Dir: filepath.Join(dir, "rpc")},
		Replaced: []suite.Module{{Path: "example.com/shim", Dir: filepath.Join(dir, "shim")}},
		From:     rewrite.Function{Package: "example.com/rpc", Name: "NewClient"},
		To:       rewrite.Function{Package: "example.com/shim", Name: "NewClient"},
		Variable: variable,
		Cache:    filepath.Join(dir, "cache"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func TestWhatMayImportTheShimIsRewritten(t *testing.T) {
	choice, err := prepare(t, nil).Choose(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := &suite.Choice{
		Packages:  []string{"./high"},
		Untouched: 2, // low and own
		Mentions:  map[string]int{"helper": 1, "tests inside": 3},
	}
	if diff := cmp.Diff(want, choice); diff != "" {
		t.Error(diff)
	}
}

func TestWhatTheShimDependsOnIsNotRewritten(t *testing.T) {
	low := "package low\n\nimport (\n\t\"testing\"\n\n\t\"example.com/rpc/internal/helper\"\n)\n\nfunc TestLow(*testing.T) { helper.Client() }\n"
	w := prepare(t, map[string]string{
		"rpc/rpc.go":             "package rpc\n\nfunc NewClient() string { return \"plain\" }\n",
		"rpc/low/inside_test.go": low,
		"shim/shim.go":           "package shim\n\nimport (\n\t_ \"example.com/rpc\"\n\t_ \"example.com/rpc/low\"\n)\n\nfunc NewClient() string { return \"\" }\n",
	})
	choice, err := w.Choose(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(choice.Refused) != 1 || !strings.HasPrefix(choice.Refused[0], "./internal/helper (helper): the tests inside ./low come to it") {
		t.Errorf("refused: %q", choice.Refused)
	}
	if choice.Mentions["helper"] != 0 {
		t.Error("the helper was rewritten")
	}
}

func TestTestsAreJudgedByTheirPlainRun(t *testing.T) {
	w := prepare(t, nil)
	choice, err := w.Choose(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var reports []suite.Report
	w.Run(t.Context(), suite.Plan{
		Packages: choice.Packages,
		Settings: []string{"default", "one"},
		Expected: results.List{{Setting: results.Both, Package: "./high", Test: "TestPlainOnly", Reason: "why"}},
		Attempts: 1,
		Parallel: 2,
		AllPlain: true,
		Timeout:  time.Minute,
		Patience: 3 * time.Second,
		Report:   func(r suite.Report) { reports = append(reports, r) },
	})
	if len(reports) != 1 || reports[0].Err != nil {
		t.Fatalf("reports: %+v", reports)
	}
	got := make([]string, 0, len(reports[0].Findings))
	for _, f := range reports[0].Findings {
		got = append(got, f.String())
	}
	want := []string{
		"difference: ./high TestPanic (default): [crash crash] here, [pass] plain",
		"expected: ./high TestPlainOnly (default): why",
		"difference: ./high TestHang (one): [unfinished unfinished] here, [pass] plain",
		"difference: ./high TestPanic (one): [crash crash] here, [pass] plain",
		"difference: ./high TestSettings/of_one (one): [skip skip] here, [pass] plain",
		"expected: ./high TestPlainOnly (one): why",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	settings := slices.Sorted(maps.Keys(reports[0].Runs))
	if diff := cmp.Diff([]string{"default", "one", "plain"}, settings); diff != "" {
		t.Error(diff)
	}
}

func TestAPackageThatDoesNotCompileIsAnError(t *testing.T) {
	w := prepare(t, map[string]string{"rpc/high/broken_test.go": "package high\n\nvar x = undefined\n"})
	if _, err := w.Choose(t.Context()); err != nil {
		t.Fatal(err)
	}
	var err error
	w.Run(t.Context(), suite.Plan{
		Packages: []string{"./high"}, Settings: []string{"one"}, Parallel: 1,
		Report: func(r suite.Report) { err = r.Err },
	})
	if err == nil || !strings.Contains(err.Error(), "undefined: undefined") {
		t.Errorf("error %v", err)
	}
}

func TestPatternsSelectAsTheGoCommands(t *testing.T) {
	chosen := []string{".", "./a", "./a/b", "./ab", "./c"}
	for pattern, want := range map[string][]string{
		"./...":   chosen,
		"./a/...": {"./a", "./a/b"},
		"./a":     {"./a"},
		"a":       {"./a"},
		".":       {"."},
		"./x":     nil,
		"./x/...": nil,
	} {
		selected, idle := suite.Select(chosen, []string{pattern})
		if diff := cmp.Diff(want, selected); diff != "" {
			t.Errorf("%s: %s", pattern, diff)
		}
		if (len(idle) == 1) != (want == nil) {
			t.Errorf("%s: idle patterns %q", pattern, idle)
		}
	}
	if selected, _ := suite.Select(chosen, []string{"./a", "./a/..."}); len(selected) != 2 {
		t.Errorf("twice the same: %q", selected)
	}
}
