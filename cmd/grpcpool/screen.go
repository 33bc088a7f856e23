package main

import (
	"io"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/davidwartell/go-grpcpool/internal/reason"
)

// screen writes results to stdout and, if stderr is a terminal, a status line below
// them that is overwritten each time. Its methods may be called concurrently.
type screen struct {
	terminal int // stderr's file descriptor, or -1 if it is not a terminal

	mu      sync.Mutex // guards what follows
	stdout  io.Writer
	stderr  io.Writer
	shown   int   // columns of the status line on the screen
	failure error // the first error of writing to stdout
}

func newScreen(stdout, stderr io.Writer) *screen {
	s := &screen{terminal: -1, stdout: stdout, stderr: stderr}
	if f, ok := stderr.(interface{ Fd() uintptr }); ok {
		if fd := int(f.Fd()); term.IsTerminal(fd) {
			s.terminal = fd
		}
	}
	return s
}

// live reports whether a status line is visible.
func (s *screen) live() bool { return s.terminal >= 0 }

// status replaces the status line.
func (s *screen) status(line string) {
	if !s.live() {
		return
	}
	width := 80
	if w, _, err := term.GetSize(s.terminal); err == nil && w > 0 {
		width = w
	}
	if utf8.RuneCountInString(line) >= width { // a line that wraps cannot be erased
		line = string([]rune(line)[:width-1])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	columns := utf8.RuneCountInString(line)
	s.write("\r" + line + strings.Repeat(" ", max(0, s.shown-columns)))
	s.shown = columns
}

// print writes results above the status line. It escapes them, since they may contain a
// server's text. JSON stays JSON.
func (s *screen) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clearLocked()
	if _, err := io.WriteString(s.stdout, reason.Escape(text)); err != nil && s.failure == nil {
		s.failure = err
	}
}

// note writes a message that is not a result to stderr.
func (s *screen) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clearLocked()
	say(s.stderr, text)
}

// err returns the first error of print.
func (s *screen) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// clear erases the status line.
func (s *screen) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clearLocked()
}

// write writes a status line unescaped: it is our own text, with control characters.
func (s *screen) write(line string) {
	_, _ = io.WriteString(s.stderr, line) // a lost status line does no harm
}

func (s *screen) clearLocked() {
	if s.shown > 0 {
		s.write("\r" + strings.Repeat(" ", s.shown) + "\r")
		s.shown = 0
	}
}
