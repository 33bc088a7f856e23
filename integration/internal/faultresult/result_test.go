package faultresult_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/davidwartell/go-grpcpool/integration/internal/faultresult"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func example(row int) faultresult.Result {
	return faultresult.Result{
		Row: row, Client: "pool", Injected: "iptables DROP", Detection: 1200 * time.Millisecond,
		Recovery: time.Millisecond, Promised: "detection <= 1.5s", Held: true, Note: "3 calls | failed",
	}
}

func TestResultsOfManyWritersAreReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results")
	t.Setenv(faultresult.File, path)
	var writers sync.WaitGroup
	for row := 1; row <= faultresult.Rows; row++ {
		writers.Go(func() { faultresult.Record(t, example(row)) })
	}
	writers.Wait()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	results, err := faultresult.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != faultresult.Rows {
		t.Fatalf("%d results, want %d", len(results), faultresult.Rows)
	}
	for _, r := range results {
		if diff := cmp.Diff(example(r.Row), r); diff != "" {
			t.Error(diff)
		}
	}
}

func TestWithoutAFileNothingIsWritten(t *testing.T) {
	t.Setenv(faultresult.File, "")
	if err := faultresult.Append(example(1)); err != nil {
		t.Error(err)
	}
}

func TestAUselessResultIsRefused(t *testing.T) {
	t.Setenv(faultresult.File, "")
	for _, tc := range []struct {
		spoil func(*faultresult.Result)
		want  string
	}{
		{func(r *faultresult.Result) { r.Row = 0 }, "faultresult: row 0: want 1 to 35"},
		{func(r *faultresult.Result) { r.Row = 36 }, "faultresult: row 36: want 1 to 35"},
		{func(r *faultresult.Result) { r.Client = "" }, `client ""`},
		{func(r *faultresult.Result) { r.Detection = -1 }, "no negative time"},
		{func(r *faultresult.Result) { r.Note = "a\nb" }, "longer than one line"},
	} {
		r := example(3)
		tc.spoil(&r)
		if err := faultresult.Append(r); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want %q", err, tc.want)
		}
	}
}

func TestABrokenLineIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		"\n{]\n":                   "faultresult: line 2: ",
		`{"row":99}`:               "faultresult: line 1: row 99",
		`{"row":"one"}`:            "faultresult: line 1: ",
		strings.Repeat("x", 1<<17): "faultresult: after line 0: ",
	} {
		if _, err := faultresult.Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: got %v, want %q", text, err, want)
		}
	}
}
