package main

import (
	"context"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// asCommand is the environment variable that makes this test's program the command
// itself, for tests that need a process.
const asCommand = "GRPCPOOL_TEST_AS_COMMAND"

// ran is what a command line did.
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
			"--callers", "--duration", "--payload", "--outage", "--idle", "--recover-within", "--serve", "--json", "Exit status:", "Try next:",
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
		{[]string{"dmeo"}, `there is no command "dmeo"; "grpcpool help"`},
		{[]string{"help", "dmeo"}, `there is no command "dmeo"`},
		{[]string{"demo", "--colour"}, "not defined: -colour; see \"grpcpool demo --help\""},
		{[]string{"demo", "--callers", "many"}, `invalid value "many" for flag -callers`},
		{[]string{"demo", "--callers", "0"}, "--callers is 0, want 1 to 10000"},
		{[]string{"demo", "--callers", "10001"}, "--callers is 10001, want 1 to 10000"},
		{[]string{"demo", "--payload", "-1"}, "--payload is -1, want 0 to 1048576"},
		{[]string{"demo", "--payload", "1048576", "--callers", "10000"}, "--callers times --payload is 10.5 GB, want at most 268.4 MB"},
		{[]string{"demo", "--duration", "5"}, `invalid value "5" for flag -duration`},
		{[]string{"demo", "--duration", "1ms"}, "--duration is 1ms, want 100ms to 1h0m0s"},
		{[]string{"demo", "--outage", "0s"}, "--outage is 0s, want 100ms to 1h0m0s"},
		{[]string{"demo", "--idle", "-1s"}, "--idle is -1s, want 100ms to 1h0m0s"},
		{[]string{"demo", "--recover-within", "2h"}, "--recover-within is 2h0m0s, want 1ns to 1h0m0s"},
		{[]string{"demo", "--serve", "here"}, `--serve is "here", want host:port, such as 127.0.0.1:0`},
		{[]string{"demo", "now"}, `takes no arguments, got "now"`},
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
