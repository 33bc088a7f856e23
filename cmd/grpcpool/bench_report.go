package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/load"
)

func benchTitle(doc *benchDocument, each time.Duration) string {
	return fmt.Sprintf("BENCH %s %s\n%s, %s each, %s\n\n",
		doc.Target, doc.Method, counted(doc.Callers, "caller"), plainly(each), doc.allowed())
}

// allowed says how many streams the server allows.
func (d *benchDocument) allowed() string {
	if d.Limit == nil {
		return "the server sets no stream limit"
	}
	return fmt.Sprintf("the server allows %s per connection", counted(int(*d.Limit), "stream"))
}

const barWidth = 30

func benchProgress(p load.Progress) string {
	full := int(p.Done * barWidth)
	return fmt.Sprintf("[%s%s] %3.0f %%  %-13s  %s calls",
		strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), 100*p.Done, p.Way, group(uint64(p.Calls))) //nolint:gosec // a count
}

// benchReport is a table, a plot, and what the stream limit did.
func benchReport(doc *benchDocument) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%-14s %10s %8s %9s %9s %9s %9s %9s  %s\n",
		"", "calls/s", "failed", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "connections")
	for _, r := range doc.Results {
		fmt.Fprintf(&text, "%-14s %10s %8s %9s %9s %9s %9s %9s  %d\n", r.Way,
			group(uint64(r.CallsPerSecond)), group(uint64(r.Failed)), //nolint:gosec // a count
			figure(r.P50), figure(r.P90), figure(r.P99), figure(r.P999), figure(r.Max), r.Connections)
	}
	text.WriteString("\n" + benchPlot(doc.Results))
	text.WriteString("\n" + limitReport(doc))
	for _, r := range doc.Results {
		if r.Refusal != "" {
			fmt.Fprintf(&text, "%s: the server answered %q; that answer was measured. --header sends a token, --method calls another method.\n", r.Way, r.Refusal)
		}
		for _, kind := range slices.Sorted(maps.Keys(r.Errors)) {
			fmt.Fprintf(&text, "%s: %s failed with %q\n", r.Way, counted(r.Errors[kind], "call"), kind)
		}
	}
	return text.String()
}

// figure writes a number of milliseconds with about three significant digits.
func figure(ms float64) string {
	switch {
	case ms >= 100:
		return strconv.FormatFloat(ms, 'f', 0, 64)
	case ms >= 10:
		return strconv.FormatFloat(ms, 'f', 1, 64)
	default:
		return strconv.FormatFloat(ms, 'f', 2, 64)
	}
}

const plotWidth = 50

// quantiles are the ones that are drawn.
var quantiles = []struct {
	name string
	of   func(load.Result) float64
}{
	{"p50", func(r load.Result) float64 { return r.P50 }},
	{"p90", func(r load.Result) float64 { return r.P90 }},
	{"p99", func(r load.Result) float64 { return r.P99 }},
	{"p99.9", func(r load.Result) float64 { return r.P999 }},
}

// benchPlot draws latencies as bars, all on one scale.
func benchPlot(results []load.Result) string {
	var text strings.Builder
	longest := 0.0
	for _, r := range results {
		longest = max(longest, r.P999)
	}
	if longest == 0 {
		return ""
	}
	for _, row := range quantiles {
		name := row.name
		for _, r := range results {
			columns := max(1, int(plotWidth*row.of(r)/longest+0.5))
			fmt.Fprintf(&text, "%6s  %-14s %s %s ms\n", name, r.Way, strings.Repeat("#", columns), figure(row.of(r)))
			name = ""
		}
	}
	return text.String()
}

// limitReport says whether the stream limit made callers wait, and whether more
// connections helped.
func limitReport(doc *benchDocument) string {
	if doc.Limit == nil {
		return "The server sets no stream limit.\n"
	}
	limit := int(min(*doc.Limit, math.MaxInt32))
	if doc.Callers <= limit {
		return fmt.Sprintf("The stream limit (%d) was not the bottleneck for %s. Try --callers %d.\n", limit, counted(doc.Callers, "caller"), 5*max(limit, 1))
	}
	var text strings.Builder
	fmt.Fprintf(&text, "The stream limit was reached: one connection carries %s at a time, so on the plain channel %s had to wait.\n",
		counted(limit, "call"), counted(doc.Callers-limit, "caller"))
	for _, r := range doc.Results {
		if r.Waiting >= 0 {
			fmt.Fprintf(&text, "The %s opened %s; %s seen waiting for a stream.\n", r.Way, counted(r.Connections, "connection"), mostWaiting(r.Waiting))
		}
	}
	if len(doc.Results) == 2 && doc.Results[1].CallsPerSecond < clearlyFaster*doc.Results[0].CallsPerSecond {
		text.WriteString("More connections did not make it faster: the bottleneck is the server, the network or this machine.\n")
	}
	return text.String()
}

// clearlyFaster is how many times as many calls a second are more than noise.
const clearlyFaster = 1.1

func mostWaiting(calls int) string {
	switch calls {
	case 0:
		return "no call was"
	case 1:
		return "at most 1 call was"
	default:
		return fmt.Sprintf("at most %s were", counted(calls, "call"))
	}
}
