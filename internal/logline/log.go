package logline

import (
	"context"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/davidwartell/go-grpcpool/internal/event"
)

const (
	// detailPause is the least time between two lines at Debug of a kind.
	detailPause = time.Second

	// A connection that ends may be the beginning of an outage, and a caller who waits in vain
	// may be the first to notice one. What becomes of it is known by holdFor: the failure of
	// a dial takes 3 s, and that of a pool's tests 6 s.
	holdFor = 6500 * time.Millisecond

	// Of connections that come and go, most are told of in RemindEvery. After that an outage
	// is told of when it has lasted for overAfter.
	most = 5
)

// Log writes the lines about the events of one pool, or of one channel. Make one with New, or
// with NewOfChannel. Set the exported fields before its first use. Events have to come one at
// a time. A nil Log logs nothing.
type Log struct {
	Attrs func() []slog.Attr // what stands in every line; may be nil

	logger *slog.Logger
	prefix string
	on     func() bool     // whether lines are written now; nil: always
	ctx    context.Context //nolint:containedctx // an empty one: an event belongs to a pool or a channel, not to a call

	// mu guards what follows. It is held over a line, so that none is written after Close;
	// the handler must not call the Log.
	mu      sync.Mutex
	details map[event.Kind]*pace
	lasting map[lastingKey]*Recurring
	open    map[connection]struct{} // that are open now
	held    *event.Event            // may be the beginning of an outage
	down    spell                   // the outage
	since   time.Time               // since then
	told    int                     // so many lines about the connection were written,
	missed  int                     // and so many events had none
	timer   *time.Timer             // of what is held, and of an outage that is not told of yet
	closed  bool
}

type connection struct{ channel, id uint64 }

// pace is that of lines at Debug.
type pace struct {
	last       time.Time // when a line was written
	suppressed int       // events since then
}

// lastingKey is what a fault that lasts is about. Leaks differ by their borrower.
type lastingKey struct {
	kind event.Kind
	text string // of leaks
}

// spell is a time without a connection.
type spell struct {
	begun time.Time // zero: there is a connection, as far as it is known
	told  time.Time // when the last line was written about it; zero: not yet
	begin event.Event
	last  string // error
}

// New returns a Log that writes to logger, or nil if that would discard everything. Messages
// begin with prefix, such as "grpcpool: ".
func New(logger *slog.Logger, prefix string) *Log {
	if Discards(logger) {
		return nil
	}
	return &Log{logger: logger, prefix: prefix, ctx: context.Background()}
}

// Wants reports whether events of kind k have to be given to Handle.
func (l *Log) Wants(k event.Kind) bool {
	if l == nil {
		return false
	}
	if _, known := lines[k]; !known {
		return false
	}
	return l.enabled(slog.LevelDebug) || needed(k) && (l.enabled(slog.LevelWarn) || l.enabled(slog.LevelInfo))
}

func (l *Log) enabled(level slog.Level) bool { return l.logger.Enabled(l.ctx, level) }

// Handle logs e, now or later, or leaves it out. After event.Shutdown nothing is logged.
func (l *Log) Handle(e event.Event) {
	if !l.Wants(e.Kind) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.count(e)
	if !l.noteLocked(e) {
		l.detail(e)
	}
	if e.Kind == event.Shutdown {
		l.rest()
		l.leftovers()
		l.closed = true
	}
}

// Rest is called when nothing is connected or dialled any more, and nobody waits.
func (l *Log) Rest() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.rest()
	}
}

func (l *Log) rest() {
	if l.timer != nil {
		l.timer.Stop()
	}
	l.decide()
	clear(l.open)
}

// count keeps the set of open connections.
func (l *Log) count(e event.Event) {
	switch e.Kind {
	case event.Dialled:
		if l.open == nil {
			l.open = make(map[connection]struct{})
		}
		l.open[connection{e.Channel, e.Connection}] = struct{}{}
	case event.OpenFailed, event.ClosedIdle, event.ClosedRetired, event.ClosedShutdown:
		maps.DeleteFunc(l.open, func(c connection, _ struct{}) bool { return c.channel == e.Channel })
	default:
		if event.EndsConnection(e.Kind) {
			delete(l.open, connection{e.Channel, e.Connection})
		}
	}
}

// noteLocked decides what e means for the lines at Warn and Info. It returns true if it has
// written one that says all of e.
func (l *Log) noteLocked(e event.Event) bool {
	switch topic := lines[e.Kind].topic; {
	case e.Kind == event.Failing:
		return l.begin(e)
	case e.Kind == event.Recovered:
		return l.end(e)
	case topic == lasting:
		return l.recur(e)
	case !l.down.begun.IsZero():
		l.remind(e)
	case topic == ending && !strings.Contains(e.Text, "ended by GOAWAY (code 0,"): // then the server takes its leave in good order
		l.hold(e)
	case topic == waiting:
		l.hold(e)
	default:
	}
	return false
}

// hold keeps e until it is known whether an outage begins. A connection that ends says more
// than those who wait.
func (l *Log) hold(e event.Event) {
	switch {
	case l.held == nil:
		l.held = &e
		l.arm(holdFor)
	case lines[l.held.Kind].topic == waiting && lines[e.Kind].topic == ending:
		l.held = &e
	case l.held.Kind == e.Kind:
		l.held.Count += e.Count
	}
}

// decide ends the hold. A connection that ended is no fault if there is none since, and
// nobody has missed it.
func (l *Log) decide() {
	held := l.held
	l.held = nil
	switch {
	case held == nil:
	case lines[held.Kind].topic == waiting:
		l.recur(*held)
	case len(l.open) == 0:
	case l.spend(held.Time):
		l.write(slog.LevelWarn, *held, l.missed)
		l.missed = 0
	default:
		l.missed += max(held.Count, 1)
	}
}

// spend reports whether there may be another line about the connection.
func (l *Log) spend(now time.Time) bool {
	if l.since.IsZero() || now.Sub(l.since) >= RemindEvery {
		l.since, l.told = now, 0
	}
	l.told++
	return l.told <= most
}

// begin notes the beginning of an outage. What was held is a part of it.
func (l *Log) begin(e event.Event) bool {
	if !l.down.begun.IsZero() {
		return false
	}
	l.down = spell{begun: e.Time, begin: e, last: e.Text}
	if l.held != nil {
		l.down.begun = l.held.Time
	}
	l.held = nil
	if !l.spend(e.Time) {
		l.arm(overAfter)
		return false
	}
	l.tell(e)
	return true
}

// tell writes the first line about the outage.
func (l *Log) tell(e event.Event) {
	l.write(slog.LevelWarn, e, l.missed)
	l.missed, l.down.told = 0, e.Time
}

// end notes the end of the outage.
func (l *Log) end(e event.Event) bool {
	down := l.down
	l.down = spell{}
	switch {
	case down.begun.IsZero():
		return true // there is nothing to say
	case down.told.IsZero():
		l.missed++
		return false
	}
	if e.Text == "" {
		e.Text = down.last
	}
	e.Took = 0
	l.write(slog.LevelInfo, e, 0, slog.Duration(Outage, e.Time.Sub(down.begun).Round(time.Millisecond)))
	return true
}

// remind tells that the outage goes on, if that was not told for a while.
func (l *Log) remind(e event.Event) {
	switch e.Kind {
	case event.OpenFailed, event.TestFailed, event.DialFailed:
		l.down.last = e.Text
	case event.WaitedTooLong, event.Starved:
	default:
		return
	}
	if l.down.told.IsZero() || e.Time.Sub(l.down.told) < RemindEvery {
		return
	}
	again := event.Event{Time: e.Time, Kind: event.Failing, Text: l.down.last}
	l.writeAs(stillFailing, slog.LevelWarn, again, 0, slog.Duration(Outage, e.Time.Sub(l.down.begun).Round(time.Second)))
	l.down.told = e.Time
}

// recur writes a line about a fault that lasts, unless it was told of lately.
func (l *Log) recur(e event.Event) bool {
	key := lastingKey{kind: e.Kind}
	if e.Kind == event.Leaked {
		key.text = e.Text
	}
	r := l.lasting[key]
	if r == nil {
		if l.lasting == nil {
			l.lasting = make(map[lastingKey]*Recurring)
		}
		r = new(Recurring)
		l.lasting[key] = r
	}
	suppressed, tell := r.Note(e.Time, max(e.Count, 1))
	if tell {
		l.write(slog.LevelWarn, e, suppressed)
	}
	return tell
}

// arm has fire run in d.
func (l *Log) arm(d time.Duration) {
	if l.timer == nil {
		l.timer = time.AfterFunc(d, l.fire)
		return
	}
	l.timer.Reset(d)
}

// fire is called when the time for what is held is up. It is too early if the timer has just
// been armed anew: then a decision comes early, and is one all the same.
func (l *Log) fire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
	case l.down.begun.IsZero():
		l.decide()
	case l.down.told.IsZero():
		l.tell(l.down.begin)
	}
}

// detail writes a line at Debug, or counts e as suppressed.
func (l *Log) detail(e event.Event) {
	if !l.enabled(slog.LevelDebug) {
		return
	}
	p := l.details[e.Kind]
	if p == nil {
		if l.details == nil {
			l.details = make(map[event.Kind]*pace)
		}
		p = new(pace)
		l.details[e.Kind] = p
	}
	if !p.last.IsZero() && e.Time.Sub(p.last) < detailPause {
		p.suppressed += max(e.Count, 1)
		return
	}
	l.write(slog.LevelDebug, e, p.suppressed)
	p.last, p.suppressed = e.Time, 0
}

// leftovers says at Debug how many events had no line.
func (l *Log) leftovers() {
	if !l.enabled(slog.LevelDebug) {
		return
	}
	left := make(map[event.Kind]int)
	for k, p := range l.details {
		left[k] += p.suppressed
	}
	for _, k := range slices.Sorted(maps.Keys(left)) {
		if left[k] > 0 {
			l.write(slog.LevelDebug, event.Event{Time: time.Now(), Kind: k}, left[k])
		}
	}
}

// write writes a line about e.
func (l *Log) write(level slog.Level, e event.Event, suppressed int, more ...slog.Attr) {
	l.writeAs(lines[e.Kind].message, level, e, suppressed, more...)
}

func (l *Log) writeAs(message string, level slog.Level, e event.Event, suppressed int, more ...slog.Attr) {
	if !l.enabled(level) || l.on != nil && !l.on() {
		return
	}
	line, text, hint := of(e)
	var pc [1]uintptr
	runtime.Callers(2, pc[:])
	r := slog.NewRecord(e.Time, level, l.prefix+message, pc[0])
	if l.Attrs != nil {
		r.AddAttrs(l.Attrs()...)
	}
	addIf := func(known bool, a slog.Attr) {
		if known {
			r.AddAttrs(a)
		}
	}
	took := Took
	if line.life {
		took = Age
	}
	addIf(e.Channel != 0, slog.Uint64(Channel, e.Channel))
	addIf(e.Address != "", slog.String(Address, clean(e.Address)))
	addIf(e.Connection != 0, slog.Uint64(Connection, e.Connection))
	addIf(e.Took != 0, slog.Duration(took, e.Took.Round(time.Microsecond)))
	r.AddAttrs(more...)
	addIf(e.Count > 1, slog.Int(Count, e.Count))
	addIf(suppressed > 0, slog.Int(Suppressed, suppressed))
	addIf(text != "", slog.String(Error, text))
	addIf(level >= slog.LevelWarn, slog.String(Hint, hint))
	addIf(e.Kind == event.Leaked, slog.String(BorrowedBy, stack(e.Stack)))
	_ = l.logger.Handler().Handle(l.ctx, r) // as slog.Logger does
}

// stack writes program counters, innermost call first, as panics do.
func stack(pcs []uintptr) string {
	var text strings.Builder
	frames := runtime.CallersFrames(pcs)
	for {
		f, more := frames.Next()
		text.WriteString(f.Function + "\n\t" + f.File + ":" + strconv.Itoa(f.Line) + "\n")
		if !more {
			return text.String()
		}
	}
}
