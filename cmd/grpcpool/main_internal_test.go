package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// asCommand is the environment variable that makes the test binary run the command, for
// tests that need a process.
const asCommand = "GRPCPOOL_TEST_AS_COMMAND"

// ran is the result of a command line.
type ran struct {
	status         int
	stdout, stderr string
}

func runLine(ctx context.Context, args ...string) ran {
	var stdout, stderr strings.Builder
	status := run(ctx, args, &stdout, &stderr)
	return ran{status, stdout.String(), stderr.String()}
}

func TestHelpIsWrittenToStdoutAndNamesEverything(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"-h"}, {"--help"}} {
		got := runLine(t.Context(), args...)
		if got.status != exitOK || got.stderr != "" || !strings.Contains(got.stdout, "  demo ") {
			t.Errorf("%q: status %d, stdout %q, stderr %q", args, got.status, got.stdout, got.stderr)
		}
	}
	for _, args := range [][]string{{"demo", "--help"}, {"demo", "-h"}, {"help", "demo"}} {
		got := runLine(t.Context(), args...)
		if got.status != exitOK || got.stderr != "" {
			t.Errorf("%q: status %d, stderr %q", args, got.status, got.stderr)
		}
		for _, want := range []string{
			"--callers", "--duration", "--payload", "--outage", "--idle", "--recover-within", "--serve", "--json", "Exit status:", "Examples:",
		} {
			if !strings.Contains(got.stdout, want) {
				t.Errorf("%q does not mention %q", args, want)
			}
		}
	}
}

func TestMisuseIsExitStatus2AndSaysWhatToDo(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string // in stderr
	}{
		{nil, "Usage:"},
		{[]string{"dmeo"}, `unknown command "dmeo"; "grpcpool help"`},
		{[]string{"help", "dmeo"}, `unknown command "dmeo"`},
		{[]string{"demo", "--colour"}, "unknown flag --colour; see \"grpcpool demo --help\""},
		{[]string{"demo", "--callers", "many"}, `invalid value "many" for --callers`},
		{[]string{"demo", "--callers", "0"}, "--callers is 0; it must be from 1 to 10000"},
		{[]string{"demo", "--callers", "10001"}, "--callers is 10001; it must be from 1 to 10000"},
		{[]string{"demo", "--payload", "-1"}, "--payload is -1; it must be from 0 to 1048576"},
		{[]string{"demo", "--payload", "1048576", "--callers", "10000"}, "--callers times --payload is 10.5 GB; it must be at most 268.4 MB"},
		{[]string{"demo", "--duration", "5"}, `invalid value "5" for --duration`},
		{[]string{"demo", "--duration", "1ms"}, "--duration is 1ms; it must be from 100ms to 1h"},
		{[]string{"demo", "--outage", "0s"}, "--outage is 0s; it must be from 100ms to 1h"},
		{[]string{"demo", "--idle", "-1s"}, "--idle is -1s; it must be from 100ms to 1h"},
		{[]string{"demo", "--recover-within", "2h"}, "--recover-within is 2h; it must be from 1ns to 1h"},
		{[]string{"demo", "--serve", "here"}, `--serve is "here"; it must be host:port, such as 127.0.0.1:0`},
		{[]string{"demo", "now"}, `unexpected argument "now"`},
	} {
		got := runLine(t.Context(), tt.args...)
		if got.status != exitMisuse || got.stdout != "" {
			t.Errorf("%q: status %d, stdout %q; want status 2 and nothing", tt.args, got.status, got.stdout)
		}
		if !strings.Contains(got.stderr, tt.want) {
			t.Errorf("%q: stderr is %q, want %q in it", tt.args, got.stderr, tt.want)
		}
	}
}

func TestHelpFitsATerminal(t *testing.T) {
	for _, c := range commands() {
		got := runLine(t.Context(), c.name, "--help")
		if !strings.HasPrefix(got.stdout, "grpcpool "+c.name+" ") {
			t.Errorf("%s: the help begins with %.40q, want what the command does", c.name, got.stdout)
		}
		for line := range strings.Lines(got.stdout + usage()) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > helpWidth {
				t.Errorf("%s: a line of %d columns: %s", c.name, n, line)
			}
		}
	}
}

func TestAnErrorOfACommandIsOneLine(t *testing.T) {
	for _, args := range [][]string{
		{"proxy", "--to", "x:1", "--listen", "unix:x", "--max-clients", "0", "--idle", "-1s", "--live", "x"},
		{"bench", "x:1", "--callers", "0", "--duration", "0s"},
		{"ping", "x:1", "--cert", "/no/such/cert", "--key", "/no/such/key", "--ca", "/no/such/ca"},
	} {
		got := runLine(t.Context(), args...)
		if got.status != exitMisuse || strings.Count(got.stderr, "\n") != 1 || strings.Count(got.stderr, "grpcpool") > 2 {
			t.Errorf("%q: status %d, stderr %q, want one line", args, got.status, got.stderr)
		}
	}
}

func TestATimeFromNowIsInWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour - time.Second:      "1 hour ago",
		-3 * 24 * time.Hour:           "3 days ago",
		-20 * time.Second:             "0 minutes ago",
		time.Minute:                   "in 1 minute",
		24*time.Hour - time.Second:    "in 24 hours",
		90*24*time.Hour + time.Minute: "in 90 days",
	} {
		if got := fromNow(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
