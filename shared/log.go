package shared

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// logPause is the time between two lines about the same.
const logPause = time.Second

// says is how events read in the log. Those that are not here are not logged.
var says = map[EventKind]struct {
	level   slog.Level
	message string
}{
	EventOpened:         {slog.LevelDebug, "grpcpool: dialled"},
	EventOpenFailed:     {slog.LevelDebug, "grpcpool: dial failed"},
	EventTested:         {slog.LevelDebug, "grpcpool: tested"},
	EventTestFailed:     {slog.LevelDebug, "grpcpool: test failed"},
	EventFailing:        {slog.LevelWarn, "grpcpool: no connection"},
	EventRecovered:      {slog.LevelInfo, "grpcpool: connected again"},
	EventRetired:        {slog.LevelDebug, "grpcpool: replaced the channel"},
	EventClosedIdle:     {slog.LevelDebug, "grpcpool: closed the idle channel"},
	EventClosedRetired:  {slog.LevelDebug, "grpcpool: closed the channel that was replaced"},
	EventClosedShutdown: {slog.LevelDebug, "grpcpool: closed the channel"},
	EventWaitedTooLong:  {slog.LevelWarn, "grpcpool: a caller waited too long for a connection"},
	EventLeaked:         {slog.LevelWarn, "grpcpool: a lease has not been returned"},
	EventStuck:          {slog.LevelWarn, "grpcpool: a call of the factory ignores the end of its context"},
	EventShutdown:       {slog.LevelDebug, "grpcpool: the pool is closed"},

	EventDialled:    {slog.LevelDebug, "grpcpool: connection dialled"},
	EventDialFailed: {slog.LevelDebug, "grpcpool: connection failed"},
	EventGrew:       {slog.LevelDebug, "grpcpool: dialling further connections"},
	EventShrank:     {slog.LevelDebug, "grpcpool: closed a connection that was not needed"},
	EventReplaced:   {slog.LevelDebug, "grpcpool: replaced a connection"},
	EventEjected:    {slog.LevelWarn, "grpcpool: a connection failed its probe"},
	EventLost:       {slog.LevelWarn, "grpcpool: lost a connection"},
	EventStarved:    {slog.LevelWarn, "grpcpool: a call ended before it had a stream"},
}

// eventLog writes events to a logger, at most about one line a second of a kind.
// It is used by one goroutine at a time.
type eventLog struct {
	logger *slog.Logger
	ctx    context.Context //nolint:containedctx // of nobody: an event belongs to the pool, not to a call
	topics map[topic]*spoken
}

// topic is what lines are about; leaks are told apart by their borrowers.
type topic struct {
	kind EventKind
	text string
}

// spoken is what has been said of a topic.
type spoken struct {
	last       time.Time // when a line was written
	suppressed int       // events since then
}

// enabled reports whether events of this kind are logged. It may be called
// concurrently with everything.
func (l *eventLog) enabled(k EventKind) bool {
	line, ok := says[k]
	return ok && l.logger.Enabled(l.ctx, line.level)
}

// note logs e, or counts it as suppressed.
func (l *eventLog) note(e Event) {
	if !l.enabled(e.Kind) {
		return
	}
	about := topic{kind: e.Kind}
	if e.Kind == EventLeaked {
		about.text = e.Text
	}
	s := l.topics[about]
	if s == nil {
		if l.topics == nil {
			l.topics = make(map[topic]*spoken)
		}
		s = new(spoken)
		l.topics[about] = s
	}
	if !s.last.IsZero() && e.Time.Sub(s.last) < logPause {
		s.suppressed += e.Count
		return
	}
	s.last = e.Time
	l.write(e, &s.suppressed)
	if e.Kind == EventShutdown {
		l.rest()
	}
}

func (l *eventLog) write(e Event, suppressed *int) {
	line := says[e.Kind]
	attrs := make([]slog.Attr, 0, 8)
	add := func(given bool, a slog.Attr) {
		if given {
			attrs = append(attrs, a)
		}
	}
	leak := e.Kind == EventLeaked
	add(e.Channel != 0, slog.Uint64("channel", e.Channel))
	add(e.Address != "", slog.String("address", e.Address))
	add(e.Connection != 0, slog.Uint64("connection", e.Connection))
	add(e.Took != 0 && !leak, slog.Duration("took", e.Took))
	add(leak, slog.Duration("out", e.Took))
	add(e.Count > 1, slog.Int("count", e.Count))
	add(e.Text != "" && !leak, slog.String("why", e.Text))
	if leak {
		attrs = append(attrs, slog.String("borrowed_by", e.borrow.String()))
	}
	add(*suppressed > 0, slog.Int("suppressed", *suppressed))
	*suppressed = 0
	l.logger.LogAttrs(l.ctx, line.level, line.message, attrs...)
}

// rest says what was suppressed and never said.
func (l *eventLog) rest() {
	left := make(map[EventKind]int)
	for about, s := range l.topics {
		if s.suppressed > 0 {
			left[about.kind] += s.suppressed
		}
	}
	for _, k := range slices.Sorted(maps.Keys(left)) {
		l.logger.LogAttrs(l.ctx, says[k].level, says[k].message, slog.Int("suppressed", left[k]))
	}
}
