package shared

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// logPause is the least time between two lines about the same.
const logPause = time.Second

// logLines is how events read in the log. Other kinds are not logged.
var logLines = map[EventKind]struct {
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
	EventStuck:          {slog.LevelWarn, "grpcpool: a call of the factory did not return when its context ended"},
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

// eventLog writes events to a logger, at most about one line a second of a kind. Only
// one goroutine at a time uses it; enabled may be called concurrently.
type eventLog struct {
	logger *slog.Logger
	ctx    context.Context //nolint:containedctx // an empty one: an event belongs to the pool, not to a call
	topics map[logTopic]*logState
}

// logTopic is what lines are about. Leaks differ by their borrower.
type logTopic struct {
	kind EventKind
	text string // of leaks
}

type logState struct {
	last       time.Time // when a line was written
	suppressed int       // events since then
}

// enabled reports whether events of kind k are logged.
func (l *eventLog) enabled(k EventKind) bool {
	line, ok := logLines[k]
	return ok && l.logger.Enabled(l.ctx, line.level)
}

// handle logs e, or counts it as suppressed.
func (l *eventLog) handle(e Event) {
	if !l.enabled(e.Kind) {
		return
	}
	topic := logTopic{kind: e.Kind}
	if e.Kind == EventLeaked {
		topic.text = e.Text
	}
	s := l.topics[topic]
	if s == nil {
		if l.topics == nil {
			l.topics = make(map[logTopic]*logState)
		}
		s = new(logState)
		l.topics[topic] = s
	}
	if !s.last.IsZero() && e.Time.Sub(s.last) < logPause {
		s.suppressed += e.Count
		return
	}
	l.write(e, s.suppressed)
	s.last, s.suppressed = e.Time, 0
	if e.Kind == EventShutdown {
		l.writeSuppressed()
	}
}

func (l *eventLog) write(e Event, suppressed int) {
	line := logLines[e.Kind]
	attrs := make([]slog.Attr, 0, 8)
	addIf := func(known bool, a slog.Attr) {
		if known {
			attrs = append(attrs, a)
		}
	}
	addIf(e.Channel != 0, slog.Uint64("channel", e.Channel))
	addIf(e.Address != "", slog.String("address", e.Address))
	addIf(e.Connection != 0, slog.Uint64("connection", e.Connection))
	leak := e.Kind == EventLeaked
	addIf(e.Took != 0 && !leak, slog.Duration("took", e.Took))
	addIf(leak, slog.Duration("out", e.Took))
	addIf(e.Count > 1, slog.Int("count", e.Count))
	addIf(e.Text != "" && !leak, slog.String("why", e.Text))
	if leak {
		attrs = append(attrs, slog.String("borrowed_by", formatStack(e.Stack)))
	}
	addIf(suppressed > 0, slog.Int("suppressed", suppressed))
	l.logger.LogAttrs(l.ctx, line.level, line.message, attrs...)
}

// writeSuppressed logs how many events of each kind were suppressed since its last
// line.
func (l *eventLog) writeSuppressed() {
	left := make(map[EventKind]int)
	for topic, s := range l.topics {
		if s.suppressed > 0 {
			left[topic.kind] += s.suppressed
		}
	}
	for _, k := range slices.Sorted(maps.Keys(left)) {
		l.logger.LogAttrs(l.ctx, logLines[k].level, logLines[k].message, slog.Int("suppressed", left[k]))
	}
}
