package main

import (
	"strings"
	"testing"
)

// noDescriptor is a terminal of unknown size, taken as 80 columns wide.
const noDescriptor = 1 << 20

func TestAStatusLineIsWrittenAnewAndMakesWayForResults(t *testing.T) {
	var both strings.Builder // a terminal shows stdout and stderr
	s := &screen{terminal: noDescriptor, stdout: &both, stderr: &both}
	s.status("long line")
	s.status("short")
	s.print("result\n")
	s.clear()
	want := "\rlong line" + "\rshort    " + "\r     \r" + "result\n"
	if got := both.String(); got != want {
		t.Errorf("the terminal got %q, want %q", got, want)
	}
}

func TestAStatusLineIsCutAtTheEdgeOfTheTerminal(t *testing.T) {
	var stderr strings.Builder
	s := &screen{terminal: noDescriptor, stderr: &stderr}
	s.status(strings.Repeat("é", 100))
	if want := "\r" + strings.Repeat("é", 79); stderr.String() != want {
		t.Errorf("the terminal got %q, want %q", stderr.String(), want)
	}
}

func TestThereIsNoStatusLineWithoutATerminal(t *testing.T) {
	var stdout, stderr strings.Builder
	s := newScreen(&stdout, &stderr)
	s.status("status")
	s.clear()
	if s.live() || stdout.Len()+stderr.Len() > 0 {
		t.Errorf("live: %v, stdout %q, stderr %q", s.live(), stdout.String(), stderr.String())
	}
}
