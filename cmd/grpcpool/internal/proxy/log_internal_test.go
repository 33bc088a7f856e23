package proxy

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/davidwartell/go-grpcpool/internal/logline"
)

// A client that is refused tries again and again, and may send what it likes.
func TestClientsThatAreRefusedAreALineEveryTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		c := guardCredentials{slog.New(slog.NewTextHandler(&log, nil)), new(logline.Recurring)}
		for range 15 * 60 {
			c.logRefused(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}, errors.New("tls: bad\nname\u202e"))
			time.Sleep(time.Second)
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[1], "suppressed=599") {
			t.Errorf("%d lines in 15 minutes, want 2:\n%s", len(lines), log.String())
		}
		for _, part := range []string{"level=WARN", `msg="client refused"`, "client=10.0.0.1:1", `error="tls: bad name\\u202e"`, "hint="} {
			if !strings.Contains(lines[0], part) {
				t.Errorf("the line does not have %q: %s", part, lines[0])
			}
		}
	})
}

func TestTheLimitOfClientsIsOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		c := &clients{most: 1, logger: slog.New(slog.NewTextHandler(&log, nil))}
		for range 60 { // one comes and goes, and others are refused
			c.enter()
			c.enter()
			c.enter()
			c.leave()
			time.Sleep(time.Second)
		}
		if n := strings.Count(log.String(), "limit reached"); n != 1 || !strings.Contains(log.String(), "hint=\"raise --max-clients") {
			t.Errorf("%d lines, want one: %s", n, log.String())
		}
	})
}
