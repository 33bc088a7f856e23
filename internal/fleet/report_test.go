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
}

var sizes = map[string]size{
	"small":  {20, []stormSize{{smallFleet, smallCapacity, smallBacklog}}, [2]int{100, 5}},
	"medium": {100, []stormSize{{300, 30, 246}}, [2]int{300, 15}},
	"full":   {300, []stormSize{{300, 30, 246}, {5000, 500, 4096}, {20000, 500, 4096}}, [2]int{1000, 50}},
}

var outages = []time.Duration{50 * time.Millisecond, 200 * time.Millisecond, time.Second, 30 * time.Second, 300 * time.Second}

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
	r.balancer(s.storms[0])
	r.rolling(s.rolling[0], s.rolling[1])
}

func (r *report) line(format string, args ...any) {
	fmt.Fprintf(r.out, format+"\n", args...)
	if err := r.out.Flush(); err != nil { // a long run shows how far it has come
		r.t.Fatal(err)
	}
}

func (r *report) head() {
	r.line("# Fleets that come back")
	r.line("")
	r.line("`make fleet` writes this page (-fleet %s, seed %d). Measured on %s with %s and grpc-go v%s, on real channels in virtual time: the load of the machine does not matter. How the servers are simulated is in the documentation of internal/fleet.",
		*fleetFlag, *seedFlag, time.Now().UTC().Format(time.DateOnly), runtime.Version(), grpc.Version)
	r.line("")
	r.line("\"scale\" is a channel of scale.NewClient, \"plain\" one of grpc.NewClient, \"pool\" a pool of package shared. Times run from the server's return to a client's first good call. Dials are counted from the loss of the connection, those that were refused included.")
}

func (r *report) alone(n int) {
	r.line("\n## One client and a fast server\n")
	r.line("%d clients for each line. Each has a server of its own, which refuses dials for the time of the outage and up to a fifth longer, so that its end is in step with nobody's pauses.\n", n)
	r.line("| outage | client | median | 99 %% | last | dials, mean | most |\n|---|---|---|---|---|---|---|")
	for _, outage := range outages {
		kinds := []kind{ours, pooled, plain}
		if outage <= 30*time.Second {
			kinds = append(kinds, fixedBackoff(100*time.Millisecond), fixedBackoff(time.Second))
		}
		for _, k := range kinds {
			m := alone(r.t, k, n, outage)
			r.line("| %v | %s | %s | %s | %s | %.1f | %d |", outage, k.name, show(m.quantile(.5)), show(m.quantile(.99)), m.last(), m.meanDials(), m.mostDials())
		}
	}
}

const stormColumns = "| outage | client | median | 99 %% | last | connections begun | wasted | dials, mean | most | accepted in the busiest second |\n|---|---|---|---|---|---|---|---|---|---|"

func (r *report) stormLine(outage string, m *measure) {
	r.line("| %s | %s | %s | %s | %s | %d | %d | %.1f | %d | %d |", outage, m.kind, show(m.quantile(.5)), show(m.quantile(.99)), m.last(), m.spent, m.wasted(), m.meanDials(), m.mostDials(), m.peak)
}

func (r *report) storm(s stormSize) {
	own := time.Duration(float64(s.clients) / s.capacity * float64(time.Second))
	r.line("\n## %d clients of one server that begins %g connections a second\n", s.clients, s.capacity)
	r.line("The server needs %v for all of them; %d connections may wait for it. A connection is wasted if no client needed it. An outage of 0 is that of clients that all begin at once.\n", own, s.backlog)
	r.line(stormColumns)
	for _, outage := range append([]time.Duration{0}, outages...) {
		kinds := []kind{ours, plain}
		if s.clients <= 300 && outage <= time.Second {
			kinds = append(kinds, pooled)
		}
		for _, k := range kinds {
			r.stormLine(outage.String(), storm(r.t, k, s.clients, s.capacity, s.backlog, outage, refuses))
		}
	}
}

func (r *report) balancer(s stormSize) {
	r.line("\n## The same behind a balancer that accepts for a server that is not there\n")
	r.line("%d clients, %g connections a second once the server is back. In the meantime the balancer accepts connections, and closes them at once (cut) or says nothing (mute). A connection that was mute stays so.\n", s.clients, s.capacity)
	r.line(stormColumns)
	for _, outage := range []time.Duration{time.Second, 30 * time.Second} {
		for _, k := range []kind{ours, plain} {
			r.stormLine(fmt.Sprintf("%v, cut", outage), storm(r.t, k, s.clients, s.capacity, s.backlog, outage, cuts))
			r.stormLine(fmt.Sprintf("%v, mute", outage), storm(r.t, k, s.clients, s.capacity, s.backlog, outage, mutes))
		}
	}
}

func (r *report) rolling(clients, servers int) {
	capacity := float64(clients) / float64(servers) * 5
	r.line("\n## A rolling restart of %d servers behind a balancer, under %d clients\n", servers, clients)
	r.line("Each server is away for a second, the next follows two seconds later; each begins %g connections a second. The balancer sends a dial to any server that is up. Times run from the loss of a connection to the next good call. A server's share of the dials is the number of connections lost, divided by the servers.\n", capacity)
	r.line("| client | connections lost | median | 99 %% | last | connections begun | wasted | share of dials | dials to the busiest server |\n|---|---|---|---|---|---|---|---|---|")
	for _, k := range []kind{ours, plain} {
		m := rolling(r.t, k, clients, servers, capacity)
		r.line("| %s | %d | %s | %s | %s | %d | %d | %d | %d |", m.kind, m.needed, show(m.quantile(.5)), show(m.quantile(.99)), m.last(), m.spent, m.wasted(), m.needed/servers, m.busiest)
	}
}

// last is when the last client was back.
func (m *measure) last() string {
	if m.missing > 0 {
		return fmt.Sprintf("%d of %d not within %v", m.missing, m.clients, patient)
	}
	return show(m.quantile(1))
}

func show(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}
