package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errCall = errors.New("the call failed")

func TestOnlyCallsThatTheOutageExcusesMayFail(t *testing.T) {
	r := newRecord()
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }

	r.note(at(0), at(10), nil)
	r.note(at(10), at(20), errCall) // not excused: the server is up
	r.serverStops()
	r.note(at(15), at(30), errCall) // excused: the server stopped during the call
	r.note(at(31), at(40), errCall) // excused: the server is down
	r.note(at(15), at(41), nil)     // answered before the server stopped: not a recovery
	recovered := r.serverIsBack()
	back := r.backAt
	r.note(at(50), at(60), errCall) // excused: the pool has not reconnected yet
	select {
	case <-recovered:
		t.Fatal("recovered without a good call")
	default:
	}
	good := back.Add(70 * time.Millisecond)
	r.note(back, good, nil)
	select {
	case <-recovered:
	default:
		t.Fatal("not recovered after a good call")
	}
	r.note(back, good.Add(1), errCall)                               // excused: it began before the recovery
	r.note(good.Add(time.Millisecond), good.Add(time.Hour), errCall) // not excused
	r.note(good, good.Add(time.Hour), nil)                           // not the first good call

	got := r.outage()
	if got.CallsFailed != 4 || got.FailedWhileUp != 2 || got.FirstFailureWhileUp != errCall.Error() {
		t.Errorf("%+v, want 4 excused failures and 2 others", got)
	}
	if got.FirstGoodCall == nil || *got.FirstGoodCall != Milliseconds(70*time.Millisecond) {
		t.Errorf("the first good call came after %v, want 70 ms", got.FirstGoodCall)
	}
}

func TestLatenciesAreThoseOfTheLoadPhase(t *testing.T) {
	r := newRecord()
	start := time.Now()
	for i := range 100 {
		r.note(start, start.Add(time.Duration(i+1)*time.Millisecond), nil)
	}
	r.note(start, start.Add(24*time.Hour), nil) // counts as a minute
	got := r.load(2 * time.Second)
	r.enter(PhaseOutage)
	r.note(start, start.Add(time.Microsecond), nil)
	if again := r.load(2 * time.Second); again.P50 != got.P50 {
		t.Errorf("a call of another phase changed p50 from %v to %v", got.P50, again.P50)
	}
	if got.Calls != 101 || got.CallsPerSecond != 50.5 {
		t.Errorf("%d calls, %v a second, want 101 and 50.5", got.Calls, got.CallsPerSecond)
	}
	for _, tt := range []struct {
		name      string
		got, want Milliseconds
	}{
		{"p50", got.P50, Milliseconds(51 * time.Millisecond)},
		{"p99", got.P99, Milliseconds(100 * time.Millisecond)},
		{"max", got.Max, Milliseconds(time.Minute)},
	} {
		if off := float64(tt.got)/float64(tt.want) - 1; off < -0.001 || off > 0.001 {
			t.Errorf("%s is %v, want %v to three digits", tt.name, time.Duration(tt.got), time.Duration(tt.want))
		}
	}
}

func TestMillisecondsAreANumberInJSON(t *testing.T) {
	got, err := json.Marshal([]Milliseconds{0, 1_234_567, Milliseconds(2 * time.Second)})
	if want := "[0.000,1.235,2000.000]"; err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

func TestThePayloadHasTheLengthAskedFor(t *testing.T) {
	for _, n := range []int{0, 1, 99, 2048, 1 << 20} {
		if got := orders(n); len(got) != n {
			t.Errorf("%d bytes, want %d", len(got), n)
		}
	}
	if got := string(orders(300)); !strings.HasPrefix(got, `{"order_id":"`) || got != string(orders(300)) {
		t.Errorf("not the same JSON each time: %s", got)
	}
}

// kept returns a result in which every promise is kept.
func kept() *Result {
	good, closed := Milliseconds(time.Second), Milliseconds(time.Second)
	return &Result{
		Load:   Load{Callers: 1, Calls: 1, Connections: 1},
		Trace:  Trace{SeenByBoth: true},
		Outage: Outage{FirstGoodCall: &good},
		Idle:   Idle{ClosedAfter: &closed},
	}
}

func TestEachPromiseCanBeBroken(t *testing.T) {
	late := Milliseconds(time.Second + 1)
	for _, tt := range []struct {
		promise string
		breach  func(*Result)
	}{
		{"", func(*Result) {}},
		{"", func(r *Result) { r.Load.Callers, r.Load.Connections = 129, 2 }},
		{"few_connections", func(r *Result) { r.Load.Connections = 2 }},
		{"few_connections", func(r *Result) { r.Load.Callers, r.Load.Connections = 5000, 11 }},
		{"no_failures", func(r *Result) { r.Outage.FailedWhileUp = 1 }},
		{"no_failures", func(r *Result) { r.Load.Calls = 0 }},
		{"one_trace", func(r *Result) { r.Trace.SeenByBoth = false }},
		{"recovery", func(r *Result) { r.Outage.FirstGoodCall = &late }},
		{"recovery", func(r *Result) { r.Outage.FirstGoodCall = nil }},
		{"idle_close", func(r *Result) { r.Idle.ClosedAfter = nil }},
		{"nothing_leaked", func(r *Result) { r.Shutdown.LeasesLeft = 1 }},
		{"nothing_leaked", func(r *Result) { r.Shutdown.ChannelsLeft = 1 }},
		{"nothing_leaked", func(r *Result) { r.Shutdown.ConnectionsLeft = 1 }},
		{"nothing_leaked", func(r *Result) { r.Shutdown.GoroutinesLeft = 1 }},
	} {
		r := kept()
		tt.breach(r)
		r.judge(Config{RecoverWithin: time.Second})
		var broken []string
		for _, p := range r.Promises {
			if !p.Kept {
				broken = append(broken, p.Name)
			}
		}
		if strings.Join(broken, " ") != tt.promise || r.Kept != (tt.promise == "") {
			t.Errorf("broken: %q, all kept: %v, want %q", broken, r.Kept, tt.promise)
		}
	}
}

func TestTheFirstUnexcusedFailureIsReported(t *testing.T) {
	r := kept()
	r.Outage.FailedWhileUp, r.Outage.FirstFailureWhileUp = 3, "out of luck"
	r.judge(Config{RecoverWithin: time.Second})
	if got := fmt.Sprint(r.Promises); !strings.Contains(got, "3 failed, 1 answered before the outage; the first: out of luck") {
		t.Errorf("the promises are %s", got)
	}
}
