package main

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/load"
)

// textsOf returns the texts in a picture.
func textsOf(t *testing.T, picture []byte) []string {
	t.Helper()
	var doc struct {
		XMLName xml.Name `xml:"svg"`
		Texts   []string `xml:"text"`
	}
	if err := xml.Unmarshal(picture, &doc); err != nil {
		t.Fatalf("%v in:\n%s", err, picture)
	}
	return doc.Texts
}

func TestBenchDrawsItsResults(t *testing.T) {
	address := limited(t, 5)
	for _, format := range [][]string{nil, {"--json"}} {
		file := filepath.Join(t.TempDir(), "bench.svg")
		args := append([]string{"bench", "--plaintext", "--callers", "20", "--duration", "400ms", "--svg", file, address}, format...)
		if got := runLine(t.Context(), args...); got.status != exitOK || got.stderr != "" || got.stdout == "" {
			t.Fatalf("%q: %+v", args, got)
		}
		picture, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts := textsOf(t, picture)
		for _, want := range []string{address + " /grpc.health.v1.Health/Check, 20 callers", "plain channel", "pool", "p50", "p90", "p99", "p99.9", "ms"} {
			if !slices.Contains(texts, want) {
				t.Errorf("%q: there is no %q in %q", args, want, texts)
			}
		}
		if all := strings.Join(texts, "\n"); !strings.Contains(all, " calls/s over 1 connection, no call failed\n") {
			t.Errorf("%q: the calls of the plain channel are missing in %q", args, texts)
		}
	}
}

func TestBenchSaysThatAPictureCannotBeWrittenBeforeItPutsLoadOnTheServer(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "no", "such.svg"), t.TempDir()} {
		got := runLine(t.Context(), "bench", "--plaintext", "--svg", name, "127.0.0.1:1") // where nothing listens
		if got.status != exitMisuse || got.stdout != "" || !strings.Contains(got.stderr, "--svg: open "+name+": ") {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestARunWithoutResultsLeavesNoPictureAndAnOldOneAsItWas(t *testing.T) {
	address := limited(t, 5)
	for _, old := range []string{"", "of yesterday"} {
		file := filepath.Join(t.TempDir(), "bench.svg")
		if old != "" {
			if err := os.WriteFile(file, []byte(old), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		look := func(when string) {
			data, err := os.ReadFile(file)
			if string(data) != old || (old == "") != errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %q, %v; want %q, or no file", when, data, err, old)
			}
		}
		if got := runLine(t.Context(), "bench", "--plaintext", "--svg", file, "127.0.0.1:1"); got.status != exitFailed {
			t.Errorf("%+v", got)
		}
		look("nothing listens")

		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		status := run(ctx, []string{"bench", "--plaintext", "--svg", file, address}, &onText{text: "BENCH", do: cancel}, io.Discard)
		if status != exitInterrupted {
			t.Errorf("status %d, want %d", status, exitInterrupted)
		}
		look("interrupted")
	}
}

func TestAPictureTakesThePlaceOfALongerOne(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bench.svg")
	if err := os.WriteFile(file, []byte(strings.Repeat("old ", 10_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	got := runLine(t.Context(), "bench", "--plaintext", "--duration", "100ms", "--callers", "2", "--svg", file, limited(t, 1))
	picture, err := os.ReadFile(file)
	if err != nil || got.status != exitOK {
		t.Fatalf("%v, %+v", err, got)
	}
	textsOf(t, picture)
	if strings.Contains(string(picture), "old") {
		t.Error("the end of the old picture is still there")
	}
}

func TestAPictureThatCannotBeWrittenIsExitStatus1BelowTheResults(t *testing.T) {
	const full = "/dev/full"
	if _, err := os.Stat(full); err != nil {
		t.Skipf("it takes a device that is always full: %v", err)
	}
	got := runLine(t.Context(), "bench", "--plaintext", "--duration", "100ms", "--callers", "2", "--svg", full, limited(t, 1))
	if got.status != exitFailed || !strings.Contains(got.stdout, "p99.9") || !strings.Contains(got.stderr, "cannot be written: write /dev/full: no space left") {
		t.Errorf("%+v", got)
	}
	if _, err := os.Stat(full); err != nil {
		t.Errorf("the run removed a file that it had not created: %v", err)
	}
}

func TestAPictureSaysHowManyCallsFailed(t *testing.T) {
	limit := uint32(100)
	doc := &benchDocument{Target: "unix:///<a>&b", Method: "/a.B/C", Callers: 1000, Limit: &limit, Results: []load.Result{
		{Way: "plain channel", Calls: 2000, Failed: 2000, Connections: 1},
		{Way: "other channel", Connections: 1},
		{Way: "pool", Calls: 10_000, Failed: 12, CallsPerSecond: 9730, P50: 102, P90: 104, P99: 112.3, P999: 0.5, Connections: 10},
	}}
	var picture strings.Builder
	if _, err := benchPicture(doc, 5*time.Second).WriteTo(&picture); err != nil {
		t.Fatal(err)
	}
	texts := textsOf(t, []byte(picture.String()))
	for _, want := range []string{
		"unix:///<a>&b /a.B/C, 1,000 callers", "Latency of successful calls; 5s each; the server allows 100 streams per connection",
		"0 calls/s over 1 connection, 2,000 of 2,000 calls failed", "0 calls/s over 1 connection, no call was answered",
		"9,730 calls/s over 10 connections, 12 of 10,000 calls failed", "102", "112", "0.50", "-",
	} {
		if !slices.Contains(texts, want) {
			t.Errorf("there is no %q in %q", want, texts)
		}
	}
}
