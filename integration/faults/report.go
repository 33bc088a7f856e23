package faults

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/davidwartell/go-grpcpool/integration/internal/faultresult"
)

// rows are the faults of the matrix, by number.
var rows = [faultresult.Rows + 1]string{
	1:  "blackhole with an RPC in flight",
	2:  "blackhole on an idle connection",
	3:  "only server-to-client dropped",
	4:  "only client-to-server dropped while the server streams",
	5:  "server process stopped, kernel still ACKs",
	6:  "proxy accepts and forwards nothing",
	7:  "reset or crash",
	8:  "link down",
	9:  "heal after a long outage",
	10: "accepts TCP, never sends SETTINGS",
	11: "connect-then-close, or GOAWAY at once, in a loop",
	12: "limit 8, 200 callers",
	13: "limit 0, or lowered while in use",
	14: "rolling GOAWAY",
	15: "latency, loss",
	16: "every connection bad at once",
	17: "ping policy",
	18: "probe starved: connection full, or head-of-line data",
	19: "lease never returned; returned twice; from many goroutines",
	20: "caller cancels during the dial",
	21: "client certificate rejected; wrong CA; expired; wrong name",
	22: "certificate rotated on disk",
	23: "hostile server",
	24: "random faults, then Close",
	25: "client process starved",
	26: "server stalled for 2.5 s with 100 live streams, then well",
	27: "dead while one other connection or backend is well",
	28: "quiet for long, dead since",
	29: "short restart",
	30: "storm of clients after an outage",
	31: "proxy that accepts, handshakes and fails behind",
	32: "token source, certificate source or file system that hangs",
	33: "every kind of answer that is not OK from the health service",
	34: "a slow network that became slow",
	35: "live transport, busy behind it",
}

// line is a line of the report: the runs that agree in row, client and injection.
type line struct {
	row              int
	injected, client string
	runs             []faultresult.Result // in the order in which they were recorded
}

// Report writes results as the table of docs/faults.md. about says, in Markdown,
// where they were measured.
func Report(w io.Writer, results []faultresult.Result, about string) error {
	var b strings.Builder
	fmt.Fprintf(&b, reportHead, about)
	lines := gather(results)
	for row := 1; row <= faultresult.Rows; row++ {
		of := slices.DeleteFunc(slices.Clone(lines), func(l line) bool { return l.row != row })
		if len(of) == 0 {
			fmt.Fprintf(&b, "| %d | %s | *not measured in this run* | | | | | | | |\n", row, rows[row])
		}
		for _, l := range of {
			b.WriteString(l.markdown())
		}
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("faults: writing the report: %w", err)
	}
	return nil
}

const reportHead = `# The fault matrix, measured

Written by ` + "`make faults`" + `; do not edit. %s

How each fault is injected and what is expected stands in integration/faults/testdata, in the script that the last column names, or in the test that it names. Detection is the time from the injection until the last new RPC was put on a connection that the fault hit. Recovery is the time from the end of the fault (or, where it does not end, from the fault) until the first good call, while callers keep trying; for a short restart it is the median of several, and for a quiet connection the time that the first call took. A line whose client is plain and that is marked "(beside)" is a channel of grpc.NewClient, as it comes, that made the same calls to the same server at the same time; it promises nothing. See integration/faults/README.md for both in detail.

| row | fault | injected how | client | runs | detection, median / worst | recovery, median / worst | promised | held | tested by, and also measured (last run) |
|---|---|---|---|---|---|---|---|---|---|
`

func gather(results []faultresult.Result) []line {
	var lines []line
	for _, r := range results {
		i := slices.IndexFunc(lines, func(l line) bool {
			return l.row == r.Row && l.injected == r.Injected && l.client == r.Client
		})
		if i < 0 {
			i = len(lines)
			lines = append(lines, line{row: r.Row, injected: r.Injected, client: r.Client})
		}
		lines[i].runs = append(lines[i].runs, r)
	}
	slices.SortStableFunc(lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.row, b.row), cmp.Compare(a.injected, b.injected), cmp.Compare(a.client, b.client))
	})
	return lines
}

func (l line) markdown() string {
	held := 0
	for _, r := range l.runs {
		if r.Held {
			held++
		}
	}
	verdict := "yes"
	last := l.runs[len(l.runs)-1]
	switch {
	case last.Beside:
		verdict = "(beside)"
	case held < len(l.runs):
		verdict = fmt.Sprintf("**no**, %d of %d", held, len(l.runs))
	}
	return fmt.Sprintf("| %d | %s | %s | %s | %d | %s | %s | %s | %s | %s |\n",
		l.row, rows[l.row], cell(l.injected), cell(l.client), len(l.runs),
		l.times(func(r faultresult.Result) time.Duration { return r.Detection }),
		l.times(func(r faultresult.Result) time.Duration { return r.Recovery }),
		cell(last.Promised), verdict, cell(last.Note))
}

// times are the median and the worst of the runs, "" if it was never measured.
func (l line) times(of func(faultresult.Result) time.Duration) string {
	var all []time.Duration
	for _, r := range l.runs {
		if d := of(r); d > 0 {
			all = append(all, d)
		}
	}
	if len(all) == 0 {
		return ""
	}
	slices.Sort(all)
	return short(all[(len(all)-1)/2]) + " / " + short(all[len(all)-1])
}

// short is d in as many digits as mean something.
func short(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1e3)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1e3)
	default:
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
}

// cell keeps text from ending its cell.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
