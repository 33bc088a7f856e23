package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool/bench/scenario"
	"github.com/davidwartell/go-grpcpool/internal/plot"
)

func TestTheReportHasWhatWasRecorded(t *testing.T) {
	r := &results{raw: map[string]*strings.Builder{}, out: t.TempDir()}
	for _, v := range []float64{3, 1000, 2} {
		r.record(scenario.Result{Scenario: "saturation", Case: "handler=20ms/callers=50", Peer: "plain", Metrics: []scenario.Metric{
			{Value: v, Unit: "calls/s"}, {Value: 2 * v, Unit: "p99-ms"},
		}})
	}
	r.record(scenario.Result{Scenario: "unary", Case: "callers=1", Peer: "plain", Metrics: []scenario.Metric{{Value: 1500, Unit: "ns/op"}}})
	r.trace(scenario.Trace{Scenario: "rotation", Case: "age=1s", Peer: "plain", Calls: []scenario.Call{{At: time.Second, Took: time.Millisecond}}})
	if err := r.write(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.out, "findings.md"), []byte("## Found\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeReport(r.out); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(r.out, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| handler=20ms, callers=50 (3 times) | calls/s | p99-ms |",
		"| plain | **3.00** (2.00 to 1,000) | **6.00** (4.00 to 2,000) |",
		"| plain | **1,500** (1,500 to 1,500) |",
		"![throughput](throughput.svg)", "goos: ", "go: go1.", "## Found",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("the report has no %q:\n%s", want, b)
		}
	}
	if _, err := os.Stat(filepath.Join(r.out, "p99.svg")); err != nil {
		t.Error(err)
	}
}

func TestCompressorsHaveTablesInTheOrderOfTheirScenario(t *testing.T) {
	r := &results{raw: map[string]*strings.Builder{}, out: t.TempDir()}
	for _, peer := range []string{"gzip", "ours"} { // as they come in one of the rounds
		r.record(scenario.Result{Scenario: "snappy", Case: "payload=1MiB-random", Peer: peer, Metrics: []scenario.Metric{
			{Value: 411.25, Unit: "cpu-us/op"}, {Value: 1048722, Unit: "wire-B/op"},
		}})
	}
	if err := r.write(); err != nil {
		t.Fatal(err)
	}
	if err := writeReport(r.out); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(r.out, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| payload=1MiB-random (1 times) | cpu-us/op | wire-B/op |\n|---|---:|---:|\n" +
			"| ours | **411** (411 to 411) | **1,048,722** (1,048,722 to 1,048,722) |\n| gzip |",
		"| ours | this library's package snappy",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("the report has no %q:\n%s", want, b)
		}
	}
	// snappy.txt and snappy.md are another benchmark's, which must not be written over.
	if _, err := os.Stat(filepath.Join(r.out, "snappy.txt")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("snappy.txt: %v", err)
	}
}

func TestARawFileHasTheVersionsOfWhatIsMeasured(t *testing.T) {
	head := environment()
	for _, key := range versioned {
		if !strings.Contains(head, "\n"+key+": v") {
			t.Errorf("no version of %s in:\n%s", key, head)
		}
	}
}

func TestAStripShowsTheWorstCallOfAStepAndWhetherOneFailed(t *testing.T) {
	w := window{scenario: "s", name: "c", from: -time.Second, to: time.Second, step: time.Second}
	strips := w.strips([]scenario.Trace{{Scenario: "s", Case: "c", Peer: "plain", Calls: []scenario.Call{
		{At: -500 * time.Millisecond, Took: 3 * time.Millisecond},
		{At: -400 * time.Millisecond, Took: 5 * time.Millisecond, Failed: true},
		{At: 500 * time.Millisecond, Took: time.Millisecond},
		{At: 2 * time.Second, Took: time.Hour},
		{At: -2 * time.Second, Took: time.Hour},
	}}})
	if len(strips) != 1 || strips[0].Name != "plain" {
		t.Fatalf("strips: %v", strips)
	}
	if got, want := strips[0].Points, []plot.Point{{Value: 3, Failed: true}, {Value: 1}}; got[0] != want[0] || got[1] != want[1] {
		t.Errorf("points %v, want %v", got, want)
	}
}

func TestAReportListsThePeersThatWereMeasured(t *testing.T) {
	r := &results{raw: map[string]*strings.Builder{}, out: t.TempDir()}
	r.record(scenario.Result{Scenario: "idle", Case: "clients=5/held=nothing", Peer: "keepalive", Metrics: []scenario.Metric{{Value: 15, Unit: "cpu-us/s"}}})
	if err := r.write(); err != nil {
		t.Fatal(err)
	}
	if err := writeReport(r.out); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(r.out, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if text := string(b); !strings.Contains(text, "\n| keepalive | defaults with") || strings.Contains(text, "grpcgcp |") || strings.Contains(text, "snappy.md") {
		t.Errorf("the report:\n%s", text)
	}
}

func TestTheTailIsShownOfAsManyValuesAsHaveOne(t *testing.T) {
	values := make([]float64, 0, 20)
	for i := range cap(values) {
		if got := tail(values); got != "" {
			t.Errorf("of %d values: %q", i, got)
		}
		values = append(values, float64(100-i))
	}
	if got, want := tail(values), ", p90 99.0"; got != want {
		t.Errorf("the tail is %q, want %q", got, want)
	}
}

func TestScenariosThatTakeLongRunWhenTheyAreAskedForAndQuickly(t *testing.T) {
	names := func(o options) string {
		together, inTurn := chosen(o)
		all := slices.Concat(together, inTurn)
		names := make([]string, 0, len(all))
		for _, s := range all {
			names = append(names, s.Name)
		}
		return strings.Join(names, " ")
	}
	if got := names(options{only: []string{"idle", "restart"}}); got != "restart idle" {
		t.Errorf("asked for: %s", got)
	}
	if all := names(options{}); strings.Contains(all, "idle") || !strings.Contains(all, "many") {
		t.Errorf("not asked for: %s", all)
	}
	if all := names(options{quick: true}); !strings.Contains(all, "idle") || !strings.Contains(all, "stall") {
		t.Errorf("quick: %s", all)
	}
}
