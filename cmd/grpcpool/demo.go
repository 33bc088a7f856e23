package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/demo"
)

// What the demo's flags may be set to.
const (
	maxCallers  = 10_000
	maxPayload  = 1 << 20
	maxInFlight = 256 << 20 // callers times payload
	minDuration = 100 * time.Millisecond
	maxDuration = time.Hour
)

const demoAbout = `grpcpool demo runs a pool against a gRPC server of its own, for about ten seconds.

It mints a certificate authority, starts a server with mutual TLS on a free port
of 127.0.0.1, and then:

  1. runs many callers through one pool, with snappy compression and tracing:
     how many calls a second, how long they take, how many connections they need;
  2. stops the server under them and brings it back: how many calls fail, and how
     soon the next one succeeds;
  3. lets the pool go idle until it closes its connection, and calls once more;
  4. shuts down, and looks for anything left behind.

At the end each promise of the pool is printed as kept or broken. Nothing leaves
this machine, and nothing is written to disk.
`

const demoStatus = `Exit status:
  0    every promise was kept
  1    a promise was broken, or the demo could not run
  2    a flag is wrong
  130  interrupted (Ctrl-C)
`

const demoNext = `Try next:
  grpcpool demo --callers 1000              more callers than one connection may carry
  grpcpool demo --payload 65536             what snappy saves on larger messages
  grpcpool demo --outage 30s                is it as fast after a long outage?
  grpcpool demo --duration 10m --serve 127.0.0.1:0
                                            look at the pool in a browser
  grpcpool demo --json | jq .promises       for scripts
`

// demoFlags is the demo's command line.
type demoFlags struct {
	demo.Config

	json bool
}

func newDemoFlags() (*flag.FlagSet, *demoFlags) {
	f := &demoFlags{}
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // what there is to say is said by parseDemoFlags
	fs.IntVar(&f.Callers, "callers", 100, "how many `callers` call at the same time, each without a pause (1 to 10000)")
	fs.DurationVar(&f.Duration, "duration", 5*time.Second, "how long they call before the server is stopped (100ms to 1h);\nthe rest takes about 5s more")
	fs.IntVar(&f.Payload, "payload", 2048, "`bytes` of text that each call sends and gets back (0 to 1048576)")
	fs.DurationVar(&f.Outage, "outage", 1500*time.Millisecond, "how long the server is away (100ms to 1h)")
	fs.DurationVar(&f.Idle, "idle", time.Second, "the pool's idle timeout (100ms to 1h)")
	fs.DurationVar(&f.RecoverWithin, "recover-within", time.Second, "how soon after the server's return a call must succeed (up to 1h)")
	fs.StringVar(&f.Serve, "serve", "", "serve the pool's live page at this `address` while the demo runs, as in 127.0.0.1:0\n(0: any free port) and print where; it answers to this machine only")
	fs.BoolVar(&f.json, "json", false, "print one JSON document of all results on stdout, and nothing else there")
	return fs, f
}

// parseDemoFlags returns flag.ErrHelp if help is asked for.
func parseDemoFlags(args []string) (*demoFlags, error) {
	fs, f := newDemoFlags()
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("takes no arguments, got %q", fs.Arg(0))
	}
	if err := checkRange("callers", f.Callers, 1, maxCallers); err != nil {
		return nil, err
	}
	if err := checkRange("payload", f.Payload, 0, maxPayload); err != nil {
		return nil, err
	}
	if n := f.Callers * f.Payload; n > maxInFlight {
		return nil, fmt.Errorf("--callers times --payload is %s, want at most %s: all of it may be in memory at once",
			size(uint64(n)), size(maxInFlight))
	}
	if _, _, err := net.SplitHostPort(f.Serve); f.Serve != "" && err != nil {
		return nil, fmt.Errorf("--serve is %q, want host:port, such as 127.0.0.1:0", f.Serve)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
		least time.Duration
	}{
		{"duration", f.Duration, minDuration},
		{"outage", f.Outage, minDuration},
		{"idle", f.Idle, minDuration},
		{"recover-within", f.RecoverWithin, 1},
	} {
		if err := checkRange(d.name, d.value, d.least, maxDuration); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func checkRange[T int | time.Duration](name string, value, least, most T) error {
	if value < least || value > most {
		return fmt.Errorf("--%s is %v, want %v to %v", name, value, least, most)
	}
	return nil
}

func demoHelp() string {
	var text strings.Builder
	text.WriteString(demoAbout)
	text.WriteString("\nUsage:\n  grpcpool demo [flags]\n\nFlags:\n")
	fs, _ := newDemoFlags()
	fs.VisitAll(func(f *flag.Flag) {
		kind, says := flag.UnquoteUsage(f)
		name := "--" + f.Name
		if kind != "" {
			name += " <" + kind + ">"
		}
		fmt.Fprintf(&text, "  %s\n      %s", name, strings.ReplaceAll(says, "\n", "\n      "))
		if f.DefValue != "false" && f.DefValue != "" {
			fmt.Fprintf(&text, "; default %s", f.DefValue)
		}
		text.WriteString("\n")
	})
	text.WriteString("\n" + demoStatus + "\n" + demoNext)
	return text.String()
}

// runDemo is the command "demo".
func runDemo(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags, err := parseDemoFlags(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		say(stdout, demoHelp())
		return exitOK
	case err != nil:
		say(stderr, fmt.Sprintf("grpcpool demo: %v; see \"grpcpool demo --help\"\n", err))
		return exitMisuse
	}

	screen := newScreen(stdout, stderr)
	result, err := showDemo(ctx, flags, screen)
	switch {
	case ctx.Err() != nil:
		say(stderr, "grpcpool demo: interrupted\n")
		return exitInterrupted
	case err != nil:
		say(stderr, fmt.Sprintf("grpcpool %v\n", err))
		return exitFailed
	case screen.err() != nil:
		say(stderr, fmt.Sprintf("grpcpool demo: writing the results: %v\n", screen.err()))
		return exitFailed
	case !result.Kept:
		return exitFailed
	default:
		return exitOK
	}
}

// showDemo runs the demo and puts what comes of it on the screen.
func showDemo(ctx context.Context, flags *demoFlags, screen *screen) (*demo.Result, error) {
	defer screen.clear()
	watcher := demo.Watcher{}
	if screen.live() {
		watcher.Tick = func(p demo.Progress) { screen.status(progressLine(p)) }
	}
	if !flags.json {
		screen.print(demoTitle(flags.Config))
		watcher.Ended = func(p demo.Phase, r *demo.Result) { screen.print(phaseReport(p, r)) }
		watcher.Serving = func(url string) { screen.print("Its live page: " + url + "\n") }
	} else {
		watcher.Serving = func(url string) { screen.note("grpcpool demo: live page at " + url + "\n") }
	}
	result, err := demo.Run(ctx, flags.Config, watcher)
	if err != nil {
		return nil, err
	}
	if !flags.json {
		screen.print(verdict(result))
		return result, nil
	}
	document, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	screen.print(string(document) + "\n")
	return result, nil
}
