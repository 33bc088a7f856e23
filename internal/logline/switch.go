package logline

import (
	"log/slog"
	"sync/atomic"
)

// Switch turns the lines about the events of a channel of package scale on: a pool that logs
// is told these events and has lines of its own about them, and whoever is told an error need
// not read of it in the log too. It is off at first.
type Switch struct{ on atomic.Bool }

// On turns the lines on.
func (s *Switch) On() {
	if s != nil {
		s.on.Store(true)
	}
}

// Logger is l for a channel that obeys the switch. What is no event is always logged.
func (s *Switch) Logger(l *slog.Logger) *slog.Logger {
	if Discards(l) {
		return l
	}
	return slog.New(switched{l.Handler(), s})
}

// Discards reports whether l is sure to write nothing, now and later.
func Discards(l *slog.Logger) bool { return l.Handler() == slog.DiscardHandler }

// switched is a handler that says which switch it obeys. What it handles it passes on.
type switched struct {
	slog.Handler

	by *Switch
}

// NewOfChannel returns a Log of a channel that writes to l, and l itself without a switch. The
// Log is nil if it would never write.
func NewOfChannel(l *slog.Logger, prefix string) (*Log, *slog.Logger) {
	h, ok := l.Handler().(switched)
	if !ok {
		return New(l, prefix), l
	}
	l = slog.New(h.Handler)
	if h.by == nil {
		return nil, l
	}
	log := New(l, prefix)
	log.on = h.by.on.Load
	return log, l
}
