package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/demo"
)

// short makes a demo short, with generous timeouts, so that it passes on a loaded machine.
func short(more ...string) []string {
	return append([]string{
		"demo", "--callers", "10", "--duration", "200ms", "--outage", "100ms", "--idle", "500ms", "--recover-within", "30s",
	}, more...)
}

// document is the part of the JSON that scripts read.
type document struct {
	Load struct {
		Callers        int
		Calls          int
		Failed         int
		CallsPerSecond float64 `json:"calls_per_second"`
		P50            float64 `json:"p50_ms"`
		P99            float64 `json:"p99_ms"`
		Connections    int
		Snappy         struct {
			MessageBytes int `json:"message_bytes"`
			WireBytes    int `json:"wire_bytes"`
			SavedBytes   int `json:"saved_bytes"`
		}
	}
	Trace struct {
		ID         string
		SeenByBoth bool `json:"seen_by_client_and_server"`
		Spans      []struct{ Name, Side, ID, Parent string }
	}
	Outage struct {
		FirstGoodCall *float64 `json:"first_good_call_ms"`
		FailedWhileUp int      `json:"calls_failed_while_up"`
	}
	Idle struct {
		ClosedAfter *float64 `json:"closed_after_ms"`
	}
	Connections int
	Promises    []struct {
		Name, Promise, Found string
		Kept                 bool
	}
	Kept bool
}

func TestTheDemoKeepsItsPromisesAndSaysSoInJSON(t *testing.T) {
	got := runLine(t.Context(), short("--json")...)
	if got.status != exitOK || got.stderr != "" {
		t.Fatalf("status %d, stderr %q, stdout:\n%s", got.status, got.stderr, got.stdout)
	}
	var doc document
	if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil { //nolint:musttag // names that differ in case only need none; also if anything else is on stdout
		t.Fatalf("%v in:\n%s", err, got.stdout)
	}
	if !doc.Kept || len(doc.Promises) != 6 {
		t.Errorf("kept: %v, %d promises, want all of 6", doc.Kept, len(doc.Promises))
	}
	for _, p := range doc.Promises {
		if !p.Kept || p.Name == "" || p.Promise == "" || p.Found == "" {
			t.Errorf("promise %+v, want it kept and described", p)
		}
	}
	l := doc.Load
	if l.Callers != 10 || l.Calls == 0 || l.Failed != 0 || l.Connections != 1 || l.CallsPerSecond <= 0 || l.P50 <= 0 || l.P99 < l.P50 {
		t.Errorf("load: %+v", l)
	}
	if s := l.Snappy; s.WireBytes <= 0 || s.SavedBytes <= 0 || s.MessageBytes != s.WireBytes+s.SavedBytes {
		t.Errorf("snappy: %+v", s)
	}
	if doc.Outage.FirstGoodCall == nil || doc.Outage.FailedWhileUp != 0 || doc.Idle.ClosedAfter == nil || doc.Connections < 3 {
		t.Errorf("outage %+v, idle %+v, %d connections", doc.Outage, doc.Idle, doc.Connections)
	}

	ids := map[string]string{"": ""} // names by ID; a root has no parent
	tree := make([]string, 0, len(doc.Trace.Spans))
	for _, s := range doc.Trace.Spans {
		parent, known := ids[s.Parent]
		if !known {
			t.Errorf("%s comes before its parent", s.Name)
		}
		ids[s.ID] = s.Name
		tree = append(tree, parent+" > "+s.Side+" "+s.Name)
	}
	want := []string{
		" > client demo.first_call",
		"demo.first_call > client grpcpool.wait",
		"grpcpool.wait > client grpcpool.dial",
		"demo.first_call > client grpc.testing.BenchmarkService/UnaryCall",
		"grpc.testing.BenchmarkService/UnaryCall > server grpc.testing.BenchmarkService/UnaryCall",
	}
	if len(doc.Trace.ID) != 32 || !doc.Trace.SeenByBoth || strings.Join(tree, "\n") != strings.Join(want, "\n") {
		t.Errorf("trace %q, seen by both: %v, spans:\n%s\nwant:\n%s",
			doc.Trace.ID, doc.Trace.SeenByBoth, strings.Join(tree, "\n"), strings.Join(want, "\n"))
	}
}

func TestABrokenPromiseIsExitStatus1(t *testing.T) {
	got := runLine(t.Context(), short("--recover-within", "1ns")...)
	if got.status != exitFailed || got.stderr != "" {
		t.Errorf("status %d, stderr %q, want status 1 and nothing", got.status, got.stderr)
	}
	for _, want := range []string{
		"1. Many callers", "2. The server", "3. The pool", "4. Shutdown", "grpcpool.dial", "seen by client and server",
		"   BROKEN  calls succeed within 1ns of the server's restart: the first after ",
		"   kept    no call fails while the server is up: 0 failed",
		"\n1 of 6 promises broken.\n",
	} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("there is no %q in:\n%s", want, got.stdout)
		}
	}
	if strings.Contains(got.stdout, "\r") {
		t.Error("a carriage return in output that is not written to a terminal")
	}
}

// onText calls do when a text is written.
type onText struct {
	strings.Builder

	text string
	do   func()
}

func (w *onText) Write(p []byte) (int, error) { return w.WriteString(string(p)) }

func (w *onText) WriteString(s string) (int, error) {
	if strings.Contains(s, w.text) {
		w.do()
	}
	return w.Builder.WriteString(s)
}

func TestAnInterruptEndsTheDemoInAnyPhase(t *testing.T) {
	for _, after := range []string{"One pool", "1. Many callers", "2. The server", "3. The pool"} {
		t.Run(after, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var stderr strings.Builder
			status := run(ctx, short(), &onText{text: after, do: cancel}, &stderr)
			if status != exitInterrupted || stderr.String() != "grpcpool demo: interrupted\n" {
				t.Errorf("status %d, stderr %q", status, stderr.String())
			}
			// TestMain finds goroutines that are left running.
		})
	}
}

// visitor visits the first URL that is written to it.
type visitor struct {
	strings.Builder

	t       *testing.T
	visited bool
}

func (v *visitor) Write(p []byte) (int, error) { return v.WriteString(string(p)) }

func (v *visitor) WriteString(s string) (int, error) {
	if _, after, found := strings.Cut(s, "http://"); found && !v.visited {
		v.visited = true
		at, _, _ := strings.Cut(after, "\n")
		v.visit("http://" + at)
	}
	return v.Builder.WriteString(s)
}

func (v *visitor) visit(url string) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for query, want := range map[string]string{"": "<h2>demo</h2>", "?format=json": `"name": "demo"`} {
		answer, err := client.Get(url + query)
		if err != nil {
			v.t.Error(err)
			return
		}
		page, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK || !strings.Contains(string(page), want) {
			v.t.Errorf("%s%s: %s, %v:\n%s\nwant %q in it", url, query, answer.Status, err, page, want)
		}
	}
}

func TestTheDemoServesItsLivePage(t *testing.T) {
	t.Run("and says where", func(t *testing.T) {
		stdout, stderr := &visitor{t: t}, &strings.Builder{}
		if status := run(t.Context(), short("--serve", "127.0.0.1:0"), stdout, stderr); status != exitOK || !stdout.visited || stderr.Len() > 0 {
			t.Errorf("status %d, visited: %v, stdout:\n%s\nstderr:\n%s", status, stdout.visited, stdout, stderr)
		}
	})
	t.Run("beside JSON", func(t *testing.T) {
		stdout, stderr := &strings.Builder{}, &visitor{t: t}
		status := run(t.Context(), short("--json", "--serve", "127.0.0.1:0"), stdout, stderr)
		if status != exitOK || !stderr.visited || !json.Valid([]byte(stdout.String())) {
			t.Errorf("status %d, visited: %v, stdout:\n%s\nstderr:\n%s", status, stderr.visited, stdout, stderr)
		}
	})
	t.Run("or says why not", func(t *testing.T) {
		got := runLine(t.Context(), short("--serve", "127.0.0.1:notaport")...)
		if got.status != exitFailed || !strings.Contains(got.stderr, "serving the live page: ") {
			t.Errorf("status %d, stderr %q", got.status, got.stderr)
		}
	})
}

func TestAnInterruptedDemoWritesNoJSON(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := runLine(ctx, short("--json")...); got.status != exitInterrupted || got.stdout != "" {
		t.Errorf("status %d, stdout %q", got.status, got.stdout)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestResultsThatCannotBeWrittenAreExitStatus1(t *testing.T) {
	var stderr strings.Builder
	if status := run(t.Context(), short("--json"), fullDisk{}, &stderr); status != exitFailed {
		t.Errorf("status %d, want 1", status)
	}
	if want := "grpcpool demo: writing the results: no space left on device\n"; stderr.String() != want {
		t.Errorf("stderr %q, want %q", stderr.String(), want)
	}
}

func TestReportsSayWhatWentWrong(t *testing.T) {
	r := &demo.Result{}
	r.Load.Snappy = demo.Saving{MessageBytes: 100, WireBytes: 150, SavedBytes: -50, SavedShare: -0.5}
	r.Trace.ID = "5b8db7e1"
	for _, tt := range []struct {
		phase demo.Phase
		want  string
	}{
		{demo.PhaseLoad, "100 B of messages sent as 150 B: nothing saved"},
		{demo.PhaseLoad, "5b8db7e1, not seen by both sides"},
		{demo.PhaseOutage, "first good call  none"},
		{demo.PhaseIdle, "connection       still open"},
	} {
		if got := phaseReport(tt.phase, r); !strings.Contains(got, tt.want) {
			t.Errorf("there is no %q in:\n%s", tt.want, got)
		}
	}
}

func TestNumbersAreWrittenForReaders(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{group(0), "0"},
		{group(999), "999"},
		{group(1000), "1,000"},
		{group(1234567), "1,234,567"},
		{size(0), "0 B"},
		{size(999), "999 B"},
		{size(1000), "1.0 kB"},
		{size(115_100_000), "115.1 MB"},
		{size(2_500_000_000), "2.5 GB"},
		{span(0), "0.00 ms"},
		{span(150_000), "0.15 ms"},
		{span(12_300_000), "12 ms"},
		{span(1_240_000_000), "1.24 s"},
		{span(90_000_000_000), "90.0 s"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}
