package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/ping"
)

// findingsReport describes the server.
func findingsReport(doc *pingDocument, mutual bool) string {
	var text strings.Builder
	row := func(label, format string, args ...any) {
		fmt.Fprintf(&text, "  %-12s %s\n", label, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&text, "PING %s\n", doc.Target)
	f := doc.Findings
	if len(f.Addresses) > 0 {
		row("addresses", "%s", strings.Join(f.Addresses, ", "))
	}
	if f.Connected != "" {
		by := ""
		if f.Proxy != "" {
			by = ", via the proxy " + f.Proxy + " (HTTPS_PROXY)"
		}
		row("connected", "%s in %.2f ms%s", f.Connected, f.Connect, by)
	}
	if f.Connected == "" && f.Proxy != "" {
		row("proxy", "%s (HTTPS_PROXY); check it, or name the host in NO_PROXY", f.Proxy)
	}
	if f.TLS != nil {
		tlsReport(row, f.TLS, mutual)
	}
	if h := f.HTTP2; h != nil {
		if h.Limited {
			row("streams", "at most %d at a time per connection", h.MaxStreams)
		} else {
			row("streams", "the server sets no limit")
		}
		row("HTTP/2", "PING answered in %.2f ms; %d PINGs in a row: %s", h.Ping, 5, h.FrequentPings)
	}
	if doc.Error != "" {
		row("problem", "%s", doc.Error)
	}
	text.WriteString("\n")
	return text.String()
}

func tlsReport(row func(label, format string, args ...any), t *ping.TLS, mutual bool) {
	if t.Version != "" {
		protocol := t.Protocol
		if protocol == "" {
			protocol = "none"
		}
		row("TLS", "%s, %s, ALPN %s, handshake %.2f ms", t.Version, t.Cipher, protocol, t.Handshake)
	}
	c := t.Certificate
	// The names are the peer's text, hence %q.
	row("certificate", "%q for %q", c.Subject, c.Names)
	row("", "issued by %q", c.Issuer)
	row("", "expires %s (%s)", c.Expires.UTC().Format(time.RFC3339), fromNow(time.Until(c.Expires)))
	if t.Version == "" {
		return
	}
	switch {
	case t.ClientAsked && mutual:
		row("client cert", "requested and provided")
	case t.ClientAsked:
		row("client cert", "requested; none provided")
	case mutual:
		row("client cert", "not requested, so not provided")
	default:
		row("client cert", "not requested")
	}
}

// fromNow writes "in 90 days" or "1 hour ago".
func fromNow(d time.Duration) string {
	span := d.Abs()
	var text string
	switch minutes, hours := int(span.Minutes()+0.5), int(span.Hours()+0.5); {
	case minutes < 60:
		text = counted(minutes, "minute")
	case hours < 48:
		text = counted(hours, "hour")
	default:
		text = counted(int(span.Hours()/24), "day")
	}
	if d < 0 {
		return text + " ago"
	}
	return "in " + text
}

func pingLine(p ping.Ping) string {
	if p.Error != "" {
		return fmt.Sprintf("seq=%d failed: %s\n", p.Seq, p.Error)
	}
	return fmt.Sprintf("seq=%d time=%.2f ms %s\n", p.Seq, p.Time, p.Health)
}

func summaryReport(target string, s ping.Summary) string {
	text := fmt.Sprintf("\n--- %s ---\n%s, %d answered, %.0f %% lost, %s\n",
		target, counted(s.Sent, "ping"), s.Answered, 100*s.Loss, counted(int(s.Connections), "connection")) //nolint:gosec // a count of pings at most
	if s.Answered > 0 {
		text += fmt.Sprintf("min %.2f, p50 %.2f, p99 %.2f, max %.2f ms\n", s.Min, s.P50, s.P99, s.Max)
	}
	return text
}
