package faults_test

import (
	"strings"
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool/integration/faults"
	"github.com/davidwartell/go-grpcpool/integration/internal/faultresult"
)

func TestRepeatsBecomeOneLineOfTheReport(t *testing.T) {
	run := func(row int, client string, detection time.Duration, held bool) faultresult.Result {
		return faultresult.Result{
			Row: row, Client: client, Injected: "a | b", Detection: detection, Recovery: 2 * detection,
			Promised: "detect <= 1.5s", Held: held, Note: "3 calls",
		}
	}
	var b strings.Builder
	if err := faults.Report(&b, []faultresult.Result{
		run(3, "pool", 1300*time.Millisecond, true),
		run(1, "pool", 1400*time.Millisecond, true),
		run(1, "scale", 2*time.Millisecond, true),
		run(1, "pool", 1600*time.Millisecond, false),
		run(1, "pool", 900*time.Millisecond, true),
		{Row: 17, Client: "pool", Injected: "nothing", Promised: "0 failed", Held: true},
		{Row: 17, Client: "plain", Injected: "nothing", Beside: true, Recovery: time.Second, Note: "9 failed"},
	}, "Measured somewhere."); err != nil {
		t.Fatal(err)
	}
	got := b.String()
	var table []string
	for line := range strings.Lines(got) {
		if strings.HasPrefix(line, "| ") && !strings.Contains(line, "not measured") {
			table = append(table, strings.TrimSpace(line))
		}
	}
	want := []string{
		"| row | fault | injected how | client | runs | detection, median / worst | recovery, median / worst | promised | held | tested by, and also measured (last run) |",
		`| 1 | blackhole with an RPC in flight | a \| b | pool | 3 | 1.40 s / 1.60 s | 2.80 s / 3.20 s | detect <= 1.5s | **no**, 2 of 3 | 3 calls |`,
		`| 1 | blackhole with an RPC in flight | a \| b | scale | 1 | 2.0 ms / 2.0 ms | 4.0 ms / 4.0 ms | detect <= 1.5s | yes | 3 calls |`,
		`| 3 | only server-to-client dropped | a \| b | pool | 1 | 1.30 s / 1.30 s | 2.60 s / 2.60 s | detect <= 1.5s | yes | 3 calls |`,
		"| 17 | ping policy | nothing | plain | 1 |  | 1.00 s / 1.00 s |  | (beside) | 9 failed |",
		"| 17 | ping policy | nothing | pool | 1 |  |  | 0 failed | yes |  |",
	}
	if len(table) != len(want) {
		t.Fatalf("got %d lines, want %d:\n%s", len(table), len(want), got)
	}
	for i := range want {
		if table[i] != want[i] {
			t.Errorf("line %d:\n%s\nwant\n%s", i, table[i], want[i])
		}
	}
	if n := strings.Count(got, "not measured in this run"); n != faultresult.Rows-3 {
		t.Errorf("%d rows are said not to be measured, want %d", n, faultresult.Rows-3)
	}
	if !strings.Contains(got, "Measured somewhere.") {
		t.Error("where it was measured is missing")
	}
}
