package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/demo"
)

func demoTitle(cfg demo.Config) string {
	return fmt.Sprintf("One pool, %s, and a gRPC server with mutual TLS on loopback.\n", counted(cfg.Callers, "caller"))
}

func progressLine(p demo.Progress) string {
	return fmt.Sprintf("%5.1f s  %-12v  %7s calls/s  %s failed in total  connections: %d",
		p.Elapsed.Seconds(), p.Phase, group(uint64(p.Rate)), group(p.Failed), p.Connections)
}

// phaseReport is the text printed when a phase has ended.
func phaseReport(p demo.Phase, r *demo.Result) string {
	var text strings.Builder
	row := func(label, format string, args ...any) {
		fmt.Fprintf(&text, "   %-16s %s\n", label, fmt.Sprintf(format, args...))
	}
	switch p {
	case demo.PhaseLoad:
		text.WriteString("\n1. Many callers at once\n")
		loadReport(row, &r.Load)
		traceReport(row, &r.Trace)
	case demo.PhaseOutage:
		fmt.Fprintf(&text, "\n2. The server goes away for %s and comes back\n", span(r.Outage.Away))
		row("calls failed", "%s; each caller retries after %s", group(r.Outage.CallsFailed), span(r.Outage.RetryPause))
		if r.Outage.FirstGoodCall == nil {
			row("first good call", "none")
			break
		}
		row("first good call", "%s after the server was back", span(*r.Outage.FirstGoodCall))
	case demo.PhaseIdle:
		text.WriteString("\n3. The pool is idle\n")
		if r.Idle.ClosedAfter == nil {
			row("connection", "still open")
		} else {
			row("connection", "closed after %s (idle timeout %s), as seen by the server", span(*r.Idle.ClosedAfter), span(r.Idle.Timeout))
		}
		row("next call", "%s, over a new connection", span(r.Idle.NextCall))
	case demo.PhaseShutdown:
		text.WriteString("\n4. Shutdown\n")
		row("took", "%s", span(r.Shutdown.Took))
		row("connections", "%d opened in total, %d left open", r.Connections, r.Shutdown.ConnectionsLeft)
	}
	return text.String()
}

func loadReport(row func(label, format string, args ...any), l *demo.Load) {
	row("calls", "%s in %s: %s calls/s, %s failed", group(l.Calls), span(l.Took), group(uint64(l.CallsPerSecond)), group(l.Failed))
	row("latency", "p50 %s, p99 %s, max %s", span(l.P50), span(l.P99), span(l.Max))
	row("connections", "%d, as counted by the server", l.Connections)
	s := l.Snappy
	if s.SavedBytes > 0 {
		row("snappy", "%s of messages sent as %s: %s saved (%.0f %%)",
			size(s.MessageBytes), size(s.WireBytes), size(uint64(s.SavedBytes)), 100*s.SavedShare)
		return
	}
	row("snappy", "%s of messages sent as %s: nothing saved, the messages are too small", size(s.MessageBytes), size(s.WireBytes))
}

func traceReport(row func(label, format string, args ...any), t *demo.Trace) {
	if t.SeenByBoth {
		row("trace", "%s, seen by client and server:", t.ID)
	} else {
		row("trace", "%s, not seen by both sides:", t.ID)
	}
	for _, s := range t.Spans {
		name := strings.Repeat("  ", s.Depth) + s.Name
		row("", "%-46s %s %9s", name, s.Side, span(s.Took))
	}
}

// verdict lists the promises, and whether each was kept.
func verdict(r *demo.Result) string {
	var text strings.Builder
	text.WriteString("\nPromises\n")
	broken := 0
	for _, p := range r.Promises {
		word := "kept"
		if !p.Kept {
			word = "BROKEN"
			broken++
		}
		fmt.Fprintf(&text, "   %-7s %s: %s\n", word, p.Promise, p.Found)
	}
	if broken > 0 {
		fmt.Fprintf(&text, "\n%d of %d promises broken.\n", broken, len(r.Promises))
	} else {
		text.WriteString("\nAll promises kept. See \"grpcpool demo --help\" for more to try.\n")
	}
	return text.String()
}

// span writes a duration with two or three significant digits.
func span(m demo.Milliseconds) string {
	d := time.Duration(m)
	switch {
	case d >= 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d >= time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 2, 64) + " s"
	case d >= 10*time.Millisecond:
		return strconv.FormatFloat(1e3*d.Seconds(), 'f', 0, 64) + " ms"
	default:
		return strconv.FormatFloat(1e3*d.Seconds(), 'f', 2, 64) + " ms"
	}
}

// size writes a number of bytes in SI units.
func size(n uint64) string {
	for _, unit := range []struct {
		name  string
		bytes float64
	}{{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}} {
		if float64(n) >= unit.bytes {
			return strconv.FormatFloat(float64(n)/unit.bytes, 'f', 1, 64) + " " + unit.name
		}
	}
	return strconv.FormatUint(n, 10) + " B"
}

// group writes a number with a comma between thousands.
func group(n uint64) string {
	digits := strconv.FormatUint(n, 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// counted is "1 call" or "2,000 calls".
func counted(n int, one string) string {
	if n != 1 {
		one += "s"
	}
	return group(uint64(n)) + " " + one //nolint:gosec // a count
}
