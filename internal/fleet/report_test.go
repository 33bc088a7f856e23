package fleet_test

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// size is how large the fleets of a report are.
type size struct {
	alone   int // clients that each have a server of their own
	storms  []stormSize
	rolling [2]int // clients and servers
}

type stormSize struct {
	clients  int
	capacity float64
	backlog  int
	outages  []time.Duration
}

var (
	outages    = []time.Duration{50 * time.Millisecond, 200 * time.Millisecond, time.Second, 30 * time.Second, 300 * time.Second}
	allOutages = append([]time.Duration{0}, outages...)
	few        = []time.Duration{0, time.Second, 30 * time.Second}

	small  = stormSize{smallFleet, smallFleet / 10.0, smallFleet * 82 / 100, few}
	medium = stormSize{300, 30, 246, allOutages}
	beyond = stormSize{2500, 62.5, 512, []time.Duration{0, time.Second}} // the storm of 20,000, an eighth of its size
	sizes  = map[string]size{
		"small":  {20, []stormSize{small}, [2]int{smallFleet, 5}},
		"medium": {100, []stormSize{medium}, [2]int{300, 15}},
		"large":  {100, []stormSize{medium, {5000, 500, 4096, few}, beyond}, [2]int{1000, 50}},
		"full":   {300, []stormSize{medium, {5000, 500, 4096, allOutages}, {20000, 500, 4096, few}}, [2]int{1000, 50}},
	}
)

// TestTheReport writes the tables of docs/fleet.md to the file of -fleet.report.
func TestTheReport(t *testing.T) {
	if *reportFlag == "" {
		t.Skip("-fleet.report names no file")
	}
	file, err := os.Create(*reportFlag)
	if err != nil {
		t.Fatal(err)
	}
	r := &report{t: t, out: bufio.NewWriter(file)}
	r.write(sizes[*fleetFlag])
	if err := r.out.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

type report struct {
	t   *testing.T
	out *bufio.Writer
}

func (r *report) write(s size) {
	r.head()
	r.alone(s.alone)
	for _, storm := range s.storms {
		r.storm(storm)
	}
	r.dark(s.alone)
	r.balancer(s.storms[0])
	r.rolling(s.rolling[0], s.rolling[1])
}

func (r *report) linef(format string, args ...any) {
	fmt.Fprintf(r.out, format+"\n", args...)
	if err := r.out.Flush(); err != nil { // a long run shows how far it has come
		r.t.Fatal(err)
	}
}

func (r *report) head() {
	r.linef("# Fleets that come back")
	r.linef("")
	r.linef("`make fleet` writes this page (-fleet %s, seed %d). Measured on %s with %s and grpc-go v%s, on real channels in virtual time: the load of the machine does not matter. How the servers are simulated is in the documentation of internal/fleet.",
		*fleetFlag, *seedFlag, time.Now().UTC().Format(time.DateOnly), runtime.Version(), grpc.Version)
	r.linef("")
	r.linef("\"scale\" is a channel of scale.NewClient, \"plain\" one of grpc.NewClient, \"pool\" a pool of package shared. Times run from the server's return to a client's first good call. Dials are counted from the loss of the connection, those that were refused included.")
}

func (r *report) alone(n int) {
	r.linef("\n## One client and a fast server\n")
	r.linef("%d clients for each line. Each has a server of its own, which refuses dials for the time of the outage and up to a fifth longer, so that its end is in step with nobody's pauses.\n", n)
	r.linef("| outage | client | median | 99 %% | last | dials, mean | most |\n|---|---|---|---|---|---|---|")
	var equal time.Duration
	var more float64
	eager := fixedBackoff(100 * time.Millisecond)
	measured := make(map[time.Duration]*measure)
	for _, outage := range outages {
		measured[outage] = alone(r.t, ours, n, outage, refuses)
		if outage == 30*time.Second {
			equal = sameDials(measured[outage], outage)
		}
	}
	for _, outage := range outages {
		r.aloneLine(outage, measured[outage])
		kinds := []kind{pooled, plain}
		if outage <= 30*time.Second {
			kinds = append(kinds, eager, fixedBackoff(equal), fixedBackoff(time.Second))
		}
		for _, k := range kinds {
			m := alone(r.t, k, n, outage, refuses)
			r.aloneLine(outage, m)
			if k.name == eager.name && outage == 30*time.Second {
				more = m.meanDials() / measured[outage].meanDials()
			}
		}
	}
	r.linef("\nA backoff of %v makes as many dials as scale in the outage of 30 s. For one outage whose length is known there is always a fixed backoff that is as quick with as many dials; none is so for all of them. One of 100 ms makes %.1f times the dials in 30 s.",
		equal, more)
}

func (r *report) aloneLine(outage time.Duration, m *measure) {
	r.linef("| %s | %s | %s | %s | %s | %.1f | %d |", long(outage), m.kind, show(m.quantile(.5)), show(m.quantile(.99)), m.last(), m.meanDials(), m.mostDials())
}

const stormColumns = "| outage | client | median | 99 %% | last | connections begun | wasted | dials, mean | most | accepted in the busiest second |\n|---|---|---|---|---|---|---|---|---|---|"

func (r *report) stormLine(outage string, m *measure) {
	r.linef("| %s | %s | %s | %s | %s | %d | %d | %.1f | %d | %d |", outage, m.kind, show(m.quantile(.5)), show(m.quantile(.99)), m.last(), m.spent, m.wasted(), m.meanDials(), m.mostDials(), m.peak)
}

func (r *report) storm(s stormSize) {
	own := time.Duration(float64(s.clients) / s.capacity * float64(time.Second))
	r.linef("\n## %d clients of one server that begins %g connections a second\n", s.clients, s.capacity)
	r.linef("The server needs %s for all of them; %d connections may wait for it. A connection is wasted if no client needed it. An outage of 0 is that of clients that all begin at once.\n", long(own), s.backlog)
	r.linef(stormColumns)
	for _, outage := range s.outages {
		kinds := []kind{ours, plain}
		if s.clients <= 300 && outage <= time.Second {
			kinds = append(kinds, pooled)
		}
		for _, k := range kinds {
			r.stormLine(long(outage), storm(r.t, k, s.clients, s.capacity, s.backlog, outage, refuses))
		}
	}
}

func (r *report) balancer(s stormSize) {
	r.linef("\n## The same behind a balancer that accepts for a server that is not there\n")
	r.linef("%d clients, %g connections a second once the server is back. In the meantime the balancer accepts connections, and closes them at once (cut) or says nothing (mute). A connection that was mute stays so.\n", s.clients, s.capacity)
	r.linef(stormColumns)
	for _, outage := range []time.Duration{time.Second, 30 * time.Second} {
		for _, k := range []kind{ours, plain} {
			r.stormLine(long(outage)+", cut", storm(r.t, k, s.clients, s.capacity, s.backlog, outage, cuts))
			r.stormLine(long(outage)+", mute", storm(r.t, k, s.clients, s.capacity, s.backlog, outage, mutes))
		}
	}
}

func (r *report) dark(n int) {
	r.linef("\n## A network that is away\n")
	r.linef("%d clients for each line, each with a fast server of its own and a call under way all the time. For the time of the outage and up to a fifth longer packets are lost in both directions. After it TCP's next retransmission ends a connection that has sent something meanwhile: the server no longer knows it.\n", n)
	r.linef("| outage | client | median | 99 %% | last | dials, mean | most |\n|---|---|---|---|---|---|---|")
	for _, outage := range []time.Duration{time.Second, 30 * time.Second} {
		for _, k := range []kind{ours, pooled, plain, keptAlive} {
			r.aloneLine(outage, alone(r.t, k, n, outage, dark))
		}
	}
}

func (r *report) rolling(clients, servers int) {
	capacity := float64(clients) / float64(servers) * 5
	r.linef("\n## A rolling restart of %d servers behind a balancer, under %d clients\n", servers, clients)
	r.linef("Each server is away for a second, the next follows two seconds later; each begins %g connections a second. The balancer sends a dial to any server that is up; it takes %v to see that one is not. Each client makes five calls a second. Times run from the loss of a connection to the next good call. A server's share of the dials is the number of connections lost, divided by the servers.\n", capacity, seesAfter)
	r.linef("| client | connections lost | median | 99 %% | last | connections begun | wasted | share of dials | dials to the busiest server |\n|---|---|---|---|---|---|---|---|---|")
	for _, k := range []kind{ours, plain} {
		m := rolling(r.t, k, clients, servers, capacity)
		r.linef("| %s | %d | %s | %s | %s | %d | %d | %d | %d |", m.kind, m.needed, show(m.quantile(.5)), show(m.quantile(.99)), m.last(), m.spent, m.wasted(), m.needed/servers, m.busiest)
	}
}

// last is when the last client was back.
func (m *measure) last() string {
	if m.missing > 0 {
		return fmt.Sprintf("%d of %d not within %v", m.missing, m.clients, patient)
	}
	return show(m.quantile(1))
}

// long is an outage in the tables.
func long(d time.Duration) string {
	if d > 0 && d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%g s", d.Seconds())
}

func show(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}
