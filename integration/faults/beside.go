//go:build linux

package faults

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/davidwartell/go-grpcpool/integration/internal/faultresult"
)

// What is measured in comparison with a plain channel, or counted at the server.

// besides is the line of the report for the plain channel.
func (w *world) besides() faultresult.Result {
	r := faultresult.Result{Client: ClientPlain, Injected: w.script.Injected, Beside: true, Held: true}
	for _, o := range w.outcomes {
		switch o.what {
		case expectRecover:
			r.Recovery = w.plain.recovered(w.fault)
		case expectReturns:
			r.Recovery = median(w.plain.returns)
		}
	}
	all, hang := 0, 0
	w.plain.each(func(c *call) bool {
		all++
		if !c.stream && c.ended.IsZero() {
			hang++
		}
		return true
	})
	r.Note = fmt.Sprintf("%d of %d calls failed; %d not answered at the end; %d streams ended",
		w.plain.failures(nil), all, hang, w.plain.streamsEnded())
	return r
}

// recovered is the time from the end of the fault, or from the fault if it has none,
// until the first good call that was begun after that; 0 if there was none.
func (l *load) recovered(f faultTimes) time.Duration {
	from := f.healed
	if from.IsZero() {
		from = f.at
	}
	var first time.Time
	l.each(func(c *call) bool {
		if c.err == nil && !c.stream && !c.ended.IsZero() && c.begun.After(from) {
			first = c.ended
		}
		return first.IsZero()
	})
	if first.IsZero() {
		return 0
	}
	return first.Sub(from)
}

// awaits bounds await: a machine that has other work to do needs long.
const awaits = time.Minute

// await waits until plain has completed so many calls since the fault.
func (w *world) await(step awaitStep) error {
	n := step.n
	if w.full {
		n = step.full
	}
	for deadline := time.Now().Add(awaits); w.plain.completed(w.fault) < n; time.Sleep(10 * looks) {
		if time.Now().After(deadline) {
			return fmt.Errorf("faults: plain has completed %d calls within %v, want %d", w.plain.completed(w.fault), awaits, n)
		}
	}
	return nil
}

// Between two restarts everybody must be well for so long, and up to as long again.
const betweenRestarts = 300 * time.Millisecond

// restarts takes the server away, again and again, and notes when each client has its
// first good call after it has come back.
func (w *world) restarts(step restartsStep) error {
	n := step.n
	if w.full {
		n = step.full
	}
	for range n {
		time.Sleep(betweenRestarts + rand.N(betweenRestarts)) //nolint:gosec // not a secret
		back, err := w.servers[0].restart(step.down)
		if err != nil {
			return err
		}
		if err := w.everywhere(func(l *load) error {
			first := l.awaitGood(back, comesBack)
			if first.IsZero() {
				return fmt.Errorf("faults: no good call within %v of the server's return", comesBack)
			}
			l.returns = append(l.returns, first.Sub(back))
			return nil
		}); err != nil {
			return err
		}
		w.logf("away for %v; back for the client %v after that, for plain %v", step.down, lastOf(w.load), lastOf(w.plain))
	}
	return nil
}

func lastOf(l *load) time.Duration {
	if l == nil || len(l.returns) == 0 {
		return 0
	}
	return l.returns[len(l.returns)-1].Round(time.Microsecond)
}

func median(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[(len(sorted)-1)/2]
}

// returns judges the median of the restarts.
func (o *outcome) returns(w *world) {
	o.took = median(w.load.returns)
	o.held = o.took <= o.duration
	if !w.full { // a median of three is a matter of luck
		o.held = o.took <= 2*o.duration
	}
	o.got = fmt.Sprintf("median of %d restarts %s, the longest %s", len(w.load.returns), short(o.took), short(slices.Max(w.load.returns)))
	if w.plain != nil {
		o.got += "; plain's median " + short(median(w.plain.returns))
	}
}

// failed judges how many calls failed, beside plain's if there is one.
func (o *outcome) failed(w *world) {
	if w.plain == nil {
		o.count(w.load.failures(nil))
		return
	}
	plain := w.plain.failures(nil)
	if o.plain {
		o.number = float64(plain)
	}
	o.count(w.load.failures(nil))
	o.got += fmt.Sprintf(", of plain's %d", plain)
}

// counted judges what the first server has counted since the last connect.
func (o *outcome) counted(w *world) {
	now, err := w.servers[0].count()
	if err != nil {
		w.tb.Error(err)
	}
	if o.what == expectOthers {
		o.count(now.others - w.counted.others)
	} else {
		o.count(now.probes - w.counted.probes)
	}
}

// completed compares the good unary calls since the fault with plain's, up to its end.
func (o *outcome) completed(w *world) {
	mine, theirs := w.load.completed(w.fault), w.plain.completed(w.fault)
	ratio := float64(mine) / float64(max(theirs, 1))
	o.held = theirs > 0 && ratio >= o.number
	if !w.full { // of a hundred calls or so, a tenth more or less says nothing
		o.held = theirs > 0 && ratio >= o.number/2
	}
	o.got = fmt.Sprintf("%d calls completed, of plain's %d: %.2fx", mine, theirs, ratio)
}

func (l *load) completed(f faultTimes) (n int) {
	l.each(func(c *call) bool {
		if !c.stream && !c.ended.IsZero() && c.err == nil && c.ended.After(f.begun) && (f.healed.IsZero() || c.ended.Before(f.healed)) {
			n++
		}
		return true
	})
	return n
}
