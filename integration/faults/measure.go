//go:build linux

package faults

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/integration/internal/faultresult"
	"github.com/davidwartell/go-grpcpool/scale"
)

// outcome is what became of an expectation.
type outcome struct {
	expectStep

	line int
	held bool
	took time.Duration // what was measured, if that is a time; at least that if !held
	got  string        // the same or a count, in words
}

// measures measure what can be expected, and judge.
var measures = map[string]func(*outcome, *world){
	expectDetect:    func(o *outcome, w *world) { o.took, o.held = w.detect(o.duration) },
	expectTold:      func(o *outcome, w *world) { o.took, o.held = w.told(o.duration) },
	expectRecover:   func(o *outcome, w *world) { o.took, o.held = w.recovered(o.duration) },
	expectReturns:   (*outcome).returns,
	expectFirst:     func(o *outcome, w *world) { o.took, o.held = w.first(o.duration) },
	expectFailFast:  (*outcome).failFast,
	expectFailed:    (*outcome).failed,
	expectEnded:     func(o *outcome, w *world) { o.count(w.load.streamsEnded()) },
	expectEvicted:   func(o *outcome, w *world) { o.count(w.evicted()) },
	expectLent:      func(o *outcome, w *world) { o.count(w.lent()) },
	expectPut:       func(o *outcome, w *world) { o.count(len(w.puts())) },
	expectDials:     (*outcome).dials,
	expectConnects:  func(o *outcome, w *world) { o.count(w.events.dialsSince(w.fault.at)) },
	expectProbes:    (*outcome).counted,
	expectOthers:    (*outcome).counted,
	expectCompleted: (*outcome).completed,
	expectTail:      (*outcome).ratio,
	expectCodes:     (*outcome).otherCodes,
}

func (o *outcome) failFast(w *world) {
	slowest, late, n := w.slowestFailure(o.duration)
	o.held = n > 0 && late == 0
	o.got = fmt.Sprintf("the slowest of %d calls took %v, %d too long", n, slowest.Round(time.Millisecond), late)
}

func (o *outcome) dials(w *world) {
	n, err := w.dials.highest()
	if err != nil {
		w.tb.Error(err)
	}
	o.count(n)
}

func (o *outcome) otherCodes(w *world) {
	n := w.load.failures(o.codes)
	o.held, o.got = n == 0, fmt.Sprintf("%d with another code", n)
}

// evicted counts the connections that ended before their time, and the channels that a
// pool replaced.
func (w *world) evicted() int {
	return w.events.of(scale.EventEjected, scale.EventLost) + w.load.client.replaced()
}

// expect measures and judges.
func (w *world) expect(line int, e expectStep) {
	o := outcome{expectStep: e, line: line}
	if w.full {
		o.number = max(e.number, e.full)
	}
	measures[e.what](&o, w)
	if o.got == "" {
		o.got = o.took.String()
	}
	w.logf("%s: %s", e.text, o.got)
	if !o.held {
		w.tb.Errorf("%s:%d: expected %s, got %s%s", w.script.File, line, e.text, o.got, w.examples())
	}
	w.outcomes = append(w.outcomes, o)
}

func (o *outcome) count(n int) {
	o.held = float64(n) == o.number || (!o.exact && float64(n) < o.number)
	o.got = fmt.Sprintf("%d %s", n, o.what)
}

// ratio compares the slowest calls with the control's. In a short run these are a
// handful, about which nothing can be promised: it judges when measuring.
func (o *outcome) ratio(w *world) {
	mine, n := w.load.quantile(0.999, w.start)
	theirs, m := w.control.quantile(0.999, w.start)
	if n == 0 || m == 0 {
		o.got = fmt.Sprintf("%d calls, %d of the control", n, m)
		return
	}
	ratio := float64(mine) / float64(theirs)
	o.held = ratio <= o.number || !w.full
	o.got = fmt.Sprintf("p99.9 of %d calls %v, of the control's %d %v: %.2fx", n, mine.Round(time.Microsecond), m, theirs.Round(time.Microsecond), ratio)
}

const (
	// looks is how often what cannot be waited for is looked at.
	looks = time.Millisecond

	// lasts is how long a state must last to count as reached.
	lasts = 300 * time.Millisecond

	// overtime is how long after its bound a time is still waited for, so that a
	// miss can be told in figures.
	overtime     = 5 * time.Second
	overtimeFull = 30 * time.Second
)

func (w *world) patience(bound time.Duration) time.Duration {
	if w.full {
		return bound + overtimeFull
	}
	return bound + overtime
}

// detect waits until no new call is put on a connection that the fault hit, and tells
// when the last one was; if there was none, when the channel lost the last of them.
// That is what detection means in the report.
func (w *world) detect(bound time.Duration) (time.Duration, bool) {
	if len(w.fault.bad) == 0 {
		w.tb.Error("the client had no connection that the fault could hit")
		return 0, false
	}
	giveUp := w.fault.at.Add(w.patience(bound))
	last := w.lastPut()
	for time.Since(last) < lasts || (w.has(w.fault.bad) && !w.load.begunSince(last)) {
		if now := time.Now(); now.After(giveUp) {
			return now.Sub(w.fault.at), false
		}
		time.Sleep(looks)
		last = w.lastPut()
	}
	if end := w.events.lastEnd(); last.Equal(w.fault.at) && end.After(last) && !w.has(w.fault.bad) {
		last = end
	}
	w.fault.detected, w.fault.known = last, w.fault.at.Add(bound)
	time.Sleep(time.Until(w.fault.known))
	w.dials.begin()
	took := last.Sub(w.fault.at)
	return took, took <= bound
}

// puts are when calls were put on a connection that the fault hit, between the fault
// and its end.
func (w *world) puts() (at []time.Time) {
	w.load.mu.Lock()
	defer w.load.mu.Unlock()
	for _, on := range w.fault.bad {
		for _, put := range w.load.put[on] {
			if put.After(w.fault.at) && (w.fault.healed.IsZero() || put.Before(w.fault.healed)) {
				at = append(at, put)
			}
		}
	}
	return at
}

// lastPut is the last of puts, or when the fault came.
func (w *world) lastPut() time.Time {
	last := w.fault.at
	for _, put := range w.puts() {
		if put.After(last) {
			last = put
		}
	}
	return last
}

// putLate tells of calls that were put on a connection that the fault hit after it had
// seemed to be out of use.
func (w *world) putLate() {
	if w.fault.detected.IsZero() || !w.fault.healed.IsZero() {
		return
	}
	if last := w.lastPut(); last.After(w.fault.detected) {
		w.tb.Errorf("%s: %v after the fault a call was put on a connection that it hit, and %v after it all had seemed to be over",
			w.script.File, last.Sub(w.fault.at).Round(time.Millisecond), w.fault.detected.Sub(w.fault.at).Round(time.Millisecond))
	}
}

// begunSince reports whether a call has been begun since then, and had time to be put
// on a connection.
func (l *load) begunSince(then time.Time) (found bool) {
	until := time.Now().Add(-lasts / 2)
	l.each(func(c *call) bool {
		found = c.begun.After(then) && c.begun.Before(until)
		return !found
	})
	return found
}

// told waits until no call is on a connection that the fault hit, and tells when the
// last one left it.
func (w *world) told(bound time.Duration) (time.Duration, bool) {
	giveUp := w.fault.at.Add(w.patience(bound))
	for w.load.anyOn(w.fault.bad) {
		if now := time.Now(); now.After(giveUp) {
			return now.Sub(w.fault.at), false
		}
		time.Sleep(looks)
	}
	took := max(0, w.load.lastOn(w.fault.bad).Sub(w.fault.at))
	return took, took <= bound
}

// first waits for the end of the first call that was begun after the fault, and tells
// how long it took. It must be a good one.
func (w *world) first(bound time.Duration) (time.Duration, bool) {
	for {
		var c call
		w.load.each(func(other *call) bool {
			if other.begun.After(w.fault.at) && (c.begun.IsZero() || other.begun.Before(c.begun)) {
				c = *other
			}
			return true
		})
		from := c.begun
		if from.IsZero() {
			from = w.fault.at
		}
		took := time.Since(from)
		if !c.ended.IsZero() {
			took = c.ended.Sub(from)
			return took, c.err == nil && took <= bound
		}
		if took > w.patience(bound) {
			return took, false
		}
		time.Sleep(looks)
	}
}

// has reports whether the client's channel has one of these connections.
func (w *world) has(bad []string) bool {
	return slices.ContainsFunc(connections(w.load.client.inside()), func(c scale.Connection) bool {
		return slices.Contains(bad, c.Local)
	})
}

// anyOn reports whether a call is on one of these connections.
func (l *load) anyOn(bad []string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.active {
		if c.there && slices.Contains(bad, c.on) {
			return true
		}
	}
	return false
}

// lastOn is when a call last left one of these connections; zero: never.
func (l *load) lastOn(bad []string) (last time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, on := range bad {
		if left := l.left[on]; left.After(last) {
			last = left
		}
	}
	return last
}

// recovered waits for the end of the first good call after the healing; or, after a
// fault that is not healed, on another connection than those that the fault hit.
func (w *world) recovered(bound time.Duration) (time.Duration, bool) {
	from, healed := w.fault.healed, true
	if from.IsZero() {
		from, healed = w.fault.at, false
	}
	for {
		var first time.Time
		w.load.each(func(c *call) bool {
			if c.err == nil && c.ended.After(from) && (healed || !slices.Contains(w.fault.bad, c.on)) {
				first = c.ended
			}
			return first.IsZero()
		})
		took := time.Since(from)
		if !first.IsZero() {
			took = first.Sub(from)
			return took, took <= bound
		}
		if took > w.patience(bound) {
			return took, false
		}
		time.Sleep(looks)
	}
}

// slowestFailure is about the n calls that were begun between the moment by which the
// detection was promised and the healing: the longest that one took, or has taken, and
// how many took too long.
func (w *world) slowestFailure(bound time.Duration) (slowest time.Duration, late, n int) {
	now := time.Now()
	w.load.each(func(c *call) bool {
		if w.fault.known.IsZero() || c.begun.Before(w.fault.known) ||
			(!w.fault.healed.IsZero() && c.begun.After(w.fault.healed)) {
			return true
		}
		n++
		end := c.ended
		if end.IsZero() {
			end = now
		}
		took := end.Sub(c.begun)
		if took > slowest && took > bound {
			w.logf("too long: begun %v after the promise, took %v, ended: %t, had the channel: %t, was on a connection: %t; %v",
				c.begun.Sub(w.fault.known).Round(time.Millisecond), took.Round(time.Millisecond),
				!c.ended.IsZero(), !c.lent.IsZero(), !c.sent.IsZero(), c.err)
		}
		if slowest = max(slowest, took); took > bound {
			late++
		}
		return true
	})
	return slowest, late, n
}

// failures counts the calls that have failed, with a code other than those allowed.
func (l *load) failures(allowed []string) (n int) {
	l.each(func(c *call) bool {
		if c.err != nil && !slices.Contains(allowed, status.Code(c.err).String()) {
			n++
		}
		return true
	})
	return n
}

// streamsEnded counts the streams that have ended although nobody ended them.
func (l *load) streamsEnded() (n int) {
	l.each(func(c *call) bool {
		if c.stream && !c.ended.IsZero() {
			n++
		}
		return true
	})
	return n
}

// lent counts the calls that had the channel after the fault, and before it was
// healed.
func (w *world) lent() (n int) {
	w.load.each(func(c *call) bool {
		if c.lent.After(w.fault.at) && (w.fault.healed.IsZero() || c.lent.Before(w.fault.healed)) {
			n++
		}
		return true
	})
	return n
}

// examples tells what calls failed with, each text once.
func (w *world) examples() string {
	const most = 8
	texts := make(map[string]int)
	w.load.each(func(c *call) bool {
		if c.err != nil && (len(texts) < most || texts[c.err.Error()] > 0) {
			texts[c.err.Error()]++
		}
		return true
	})
	var b strings.Builder
	for _, text := range sortedKeys(texts) {
		fmt.Fprintf(&b, "\n%6d x %s", texts[text], text)
	}
	return b.String()
}

// summary is the line of the report that outcomes come to.
func summary(outcomes []outcome) faultresult.Result {
	r := faultresult.Result{Held: true}
	promised, notes := make([]string, 0, len(outcomes)), make([]string, 0, len(outcomes))
	for _, o := range outcomes {
		r.Held = r.Held && o.held
		promised = append(promised, o.text)
		switch o.what {
		case expectDetect:
			r.Detection = max(r.Detection, o.took)
		case expectRecover, expectReturns, expectFirst:
			r.Recovery = max(r.Recovery, o.took)
		default:
			notes = append(notes, o.note())
		}
	}
	r.Promised, r.Note = strings.Join(promised, "; "), strings.Join(notes, "; ")
	return r
}

// note is what the report says of it beside the times in columns of their own.
func (o *outcome) note() string {
	if o.what == expectTold {
		return "calls on it told after " + short(o.took)
	}
	return o.got
}
