package demo

import (
	"fmt"
	"time"
)

// Promise is what the pool promises, and whether it has kept it.
type Promise struct {
	Name    string `json:"name"`
	Promise string `json:"promise"`
	Kept    bool   `json:"kept"`
	Found   string `json:"found"` // what was measured
}

// judge compares the result with the promises.
func (r *Result) judge(cfg Config) {
	r.Promises = []Promise{
		r.fewConnections(), r.noFailures(), r.oneTrace(), r.recovery(cfg.RecoverWithin), r.idleClose(), r.nothingLeaked(),
	}
	r.Kept = true
	for _, p := range r.Promises {
		r.Kept = r.Kept && p.Kept
	}
}

func (r *Result) fewConnections() Promise {
	n, most := r.Load.Connections, connectionsFor(r.Load.Callers)
	text := "one connection serves all callers"
	if most > 1 {
		text = fmt.Sprintf("%d connections serve all callers (the server allows %d streams on each)", most, streamLimit)
	}
	return Promise{
		"few_connections", text,
		n > 0 && n <= most, fmt.Sprintf("opened: %d, callers: %d", n, r.Load.Callers),
	}
}

// connectionsFor is how many connections that many callers need, at most maxConnections.
func connectionsFor(callers int) int {
	return min((callers+streamLimit-1)/streamLimit, maxConnections)
}

func (r *Result) noFailures() Promise {
	failed := r.Outage.FailedWhileUp
	p := Promise{
		"no_failures", "no call fails while the server is up",
		failed == 0 && r.Load.Calls > 0, fmt.Sprintf("%d failed, %d answered before the outage", failed, r.Load.Calls),
	}
	if failed > 0 {
		p.Found += "; the first: " + r.Outage.FirstFailureWhileUp
	}
	return p
}

func (r *Result) oneTrace() Promise {
	return Promise{
		"one_trace", "client and server see one trace",
		r.Trace.SeenByBoth, fmt.Sprintf("%d spans from the client, %d from the server", r.Trace.ClientSpans, r.Trace.ServerSpans),
	}
}

func (r *Result) recovery(within time.Duration) Promise {
	p := Promise{Name: "recovery", Promise: fmt.Sprintf("calls succeed within %v of the server's restart", within)}
	if first := r.Outage.FirstGoodCall; first != nil {
		p.Kept = time.Duration(*first) <= within
		p.Found = fmt.Sprintf("the first after %v", time.Duration(*first).Round(100*time.Microsecond))
	} else {
		p.Found = fmt.Sprintf("none within %v", within+grace)
	}
	return p
}

func (r *Result) idleClose() Promise {
	p := Promise{Name: "idle_close", Promise: "an idle pool closes its connection"}
	timeout := time.Duration(r.Idle.Timeout)
	if closed := r.Idle.ClosedAfter; closed != nil {
		p.Kept = true
		p.Found = fmt.Sprintf("closed %v after the last call; the timeout is %v", time.Duration(*closed).Round(time.Millisecond), timeout)
	} else {
		p.Found = fmt.Sprintf("still open %v after the last call", timeout+grace)
	}
	return p
}

func (r *Result) nothingLeaked() Promise {
	s := r.Shutdown
	return Promise{
		"nothing_leaked", "nothing is left after shutdown",
		s.LeasesLeft == 0 && s.ChannelsLeft == 0 && s.ConnectionsLeft == 0 && s.GoroutinesLeft == 0,
		fmt.Sprintf("leases: %d, channels: %d, connections: %d, goroutines: %d", s.LeasesLeft, s.ChannelsLeft, s.ConnectionsLeft, s.GoroutinesLeft),
	}
}
