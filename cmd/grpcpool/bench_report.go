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
	return fmt.Sprintf("BENCH %s %s\n%s callers, %v each way, %s\n\n",
		doc.Target, doc.Method, group(uint64(doc.Callers)), each, doc.allowed()) //nolint:gosec // callers are counted from 1
}

func (d *benchDocument) allowed() string {
	if d.Limit == nil {
		return "the server sets no limit on streams"
	}
	return fmt.Sprintf("the server allows %d streams on a connection", *d.Limit)
}

const barWidth = 30

func benchProgress(p load.Progress) string {
	full := int(p.Done * barWidth)
	return fmt.Sprintf("[%s%s] %3.0f %%  %-13s  %s calls",
		strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), 100*p.Done, p.Way, group(uint64(p.Calls))) //nolint:gosec // a count
}

// benchReport is a table, a plot, and what they mean.
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
	text.WriteString("\n" + whereTheLimitBit(doc))
	for _, r := range doc.Results {
		for _, kind := range slices.Sorted(maps.Keys(r.Errors)) {
			fmt.Fprintf(&text, "%s: %s calls failed with %q\n", r.Way, group(uint64(r.Errors[kind])), kind) //nolint:gosec // a count
		}
	}
	return text.String()
}

// figure is a number of milliseconds with three digits or so.
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

// quantiles are those that are drawn.
var quantiles = []struct {
	name string
	of   func(load.Result) float64
}{
	{"p50", func(r load.Result) float64 { return r.P50 }},
	{"p90", func(r load.Result) float64 { return r.P90 }},
	{"p99", func(r load.Result) float64 { return r.P99 }},
	{"p99.9", func(r load.Result) float64 { return r.P999 }},
}

// benchPlot draws latencies as bars, all to one scale.
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

func whereTheLimitBit(doc *benchDocument) string {
	if doc.Limit == nil {
		return "The server sets no limit on streams, so none bit.\n"
	}
	limit := int(min(*doc.Limit, math.MaxInt32))
	if doc.Callers <= limit {
		return fmt.Sprintf("The limit of %d streams did not bite: there were %d callers. Try --callers %d.\n", limit, doc.Callers, 5*max(limit, 1))
	}
	var text strings.Builder
	fmt.Fprintf(&text, "The limit bit: one connection carries %d calls at a time, so on the plain channel %d callers waited.\n",
		limit, doc.Callers-limit)
	for _, r := range doc.Results {
		if r.Waiting >= 0 {
			fmt.Fprintf(&text, "The %s opened %d connections; at most %d calls were seen waiting for a stream.\n", r.Way, r.Connections, r.Waiting)
		}
	}
	return text.String()
}
