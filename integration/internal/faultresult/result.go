// Package faultresult is how tests of the fault matrix say what they measured: one
// line of JSON for each run of a row, appended to the file that the environment
// variable FAULTS_RESULTS names. `make faults` makes docs/faults.md of them.
//
// A test that has measured a row says so, whether the promise was held or not:
//
//	faultresult.Record(t, faultresult.Result{
//		Row: 12, Client: "pool", Injected: "nginx with a limit of 8, 200 callers",
//		Promised: "at most 25 connections, all served", Held: n <= 25,
//		Note: fmt.Sprintf("%d connections", n),
//	})
//
// A test outside the module integration, which cannot import this package, writes
// the same line itself.
package faultresult

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// File is the environment variable that names the file of results.
const File = "FAULTS_RESULTS"

// Rows is the number of rows of the fault matrix.
const Rows = 35

// Result is one run of one row. Runs that agree in Row, Injected and Client are
// repeats of each other and make one line of the report.
type Result struct {
	Row      int    `json:"row"`      // of the fault matrix, 1 to [Rows]
	Client   string `json:"client"`   // "scale", "pool", or what else was tested
	Injected string `json:"injected"` // how, in a few words

	// Nanoseconds. A time that was not measured is 0. One that was waited for in
	// vain is how long that was, and the promise is not held.
	Detection time.Duration `json:"detection,omitempty"`
	Recovery  time.Duration `json:"recovery,omitempty"`

	Promised string `json:"promised"`       // in a few words
	Held     bool   `json:"held"`           // whether all of it was
	Beside   bool   `json:"beside"`         // it stands there to compare, and promises nothing
	Note     string `json:"note,omitempty"` // figures that are not times; in the report the last run's
}

// check finds what would make a line of the report useless.
func (r *Result) check() error {
	switch {
	case r.Row < 1 || r.Row > Rows:
		return fmt.Errorf("row %d: want 1 to %d", r.Row, Rows)
	case r.Client == "" || r.Injected == "" || (r.Promised == "") != r.Beside:
		return fmt.Errorf("row %d: client %q, injected %q and promised %q: want all three, and no promise of what stands beside", r.Row, r.Client, r.Injected, r.Promised)
	case r.Detection < 0 || r.Recovery < 0:
		return fmt.Errorf("row %d: detection %v, recovery %v: want no negative time", r.Row, r.Detection, r.Recovery)
	case strings.ContainsAny(r.Client+r.Injected+r.Promised+r.Note, "\r\n"):
		return fmt.Errorf("row %d: a text is longer than one line", r.Row)
	default:
		return nil
	}
}

// Append adds r to the file that the environment names. Without one it only checks
// r. Processes may append at the same time.
func Append(r Result) error {
	if err := r.check(); err != nil {
		return fmt.Errorf("faultresult: %w", err)
	}
	path := os.Getenv(File)
	if path == "" {
		return nil
	}
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("faultresult: row %d: %w", r.Row, err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600) //nolint:gosec // the path is the caller's own
	if err != nil {
		return fmt.Errorf("faultresult: %w", err)
	}
	if _, err = f.Write(append(line, '\n')); err != nil { // in one write: lines of two processes do not mix
		_ = f.Close() // the write's error says more
		return fmt.Errorf("faultresult: %w", err)
	}
	if err = f.Close(); err != nil {
		return fmt.Errorf("faultresult: %w", err)
	}
	return nil
}

// Record is Append for tests: it fails the test if r cannot be recorded, and logs
// r. That the promise was not held is for the test to judge.
func Record(tb testing.TB, r Result) {
	tb.Helper()
	if err := Append(r); err != nil {
		tb.Error(err)
	}
	tb.Logf("row %d, %s, %s: detection %v, recovery %v, promised %s, held: %t. %s",
		r.Row, r.Client, r.Injected, r.Detection, r.Recovery, r.Promised, r.Held, r.Note)
}

// maxLine bounds a line that Read accepts.
const maxLine = 64 << 10

// Read reads the lines that Append wrote. Blank lines are skipped. An error names
// the line.
func Read(r io.Reader) ([]Result, error) {
	var results []Result
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, maxLine)
	n := 0
	for scanner.Scan() {
		n++
		if len(bytes.TrimSpace(scanner.Bytes())) == 0 {
			continue
		}
		var result Result
		if err := json.Unmarshal(scanner.Bytes(), &result); err != nil {
			return nil, fmt.Errorf("faultresult: line %d: %w", n, err)
		}
		if err := result.check(); err != nil {
			return nil, fmt.Errorf("faultresult: line %d: %w", n, err)
		}
		results = append(results, result)
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("faultresult: after line %d: %w", n, err)
	}
	return results, nil
}
