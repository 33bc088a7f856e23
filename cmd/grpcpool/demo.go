package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/demo"
)

// Bounds of the flags.
const (
	maxCallers  = 10_000
	maxPayload  = 1 << 20
	maxInFlight = 256 << 20 // callers times payload
	minDuration = 100 * time.Millisecond
	maxDuration = time.Hour
)

const demoAbout = `grpcpool demo runs a pool against a local gRPC server and checks what the pool
promises. It takes about ten seconds.

It creates a certificate authority, starts a server with mutual TLS on a free
port of 127.0.0.1, and then:

  1. runs many callers through one pool, with snappy compression and tracing:
     calls a second, latency, connections used;
  2. stops the server during the calls and restarts it: how many calls fail, and
     how soon calls succeed again;
  3. lets the pool go idle until it closes its connection, and calls once more;
  4. shuts down, and checks that nothing is left behind.

At the end it prints whether each promise of the pool was kept. It sends nothing
to other machines, and writes nothing to disk.
`

const demoStatus = `Exit status:
  0    every promise was kept
  1    a promise was broken, or the demo could not run
  2    a flag is wrong
  130  interrupted (Ctrl-C)
`

const demoNext = `Examples:
  grpcpool demo --callers 1000          more than one connection allows
  grpcpool demo --payload 65536         what snappy saves on larger messages
  grpcpool demo --outage 30s            recovery after a longer outage
  grpcpool demo --duration 10m --serve 127.0.0.1:0
                                        watch the pool in a browser
  grpcpool demo --json | jq .promises   for scripts
`

// demoFlags is the demo's command line.
type demoFlags struct {
	demo.Config

	json bool
}

func newDemoFlags() (*flag.FlagSet, *demoFlags) {
	f := &demoFlags{}
	fs := newFlagSet("demo")
	fs.IntVar(&f.Callers, "callers", 100, "`number` of concurrent callers, each calling without a pause, 1 to 10000")
	fs.DurationVar(&f.Duration, "duration", 5*time.Second, "how long they call before the server is stopped, 100ms to 1h; the other phases take about 5s")
	fs.IntVar(&f.Payload, "payload", 2048, "size of the text that each call sends and receives, in `bytes`, 0 to 1048576")
	fs.DurationVar(&f.Outage, "outage", 1500*time.Millisecond, "how long the server is down, 100ms to 1h")
	fs.DurationVar(&f.Idle, "idle", time.Second, "idle timeout of the pool, 100ms to 1h")
	fs.DurationVar(&f.RecoverWithin, "recover-within", time.Second, "how soon after the server's restart a call must succeed, up to 1h")
	fs.StringVar(&f.Serve, "serve", "", "serve the pool's live page at this `address` while the demo runs, for browsers on this machine; port 0 picks a free port, and the URL is printed")
	fs.BoolVar(&f.json, "json", false, "print the results as one JSON document on stdout, and nothing else there")
	return fs, f
}

// parseDemoFlags returns flag.ErrHelp if help is requested.
func parseDemoFlags(args []string) (*demoFlags, error) {
	fs, f := newDemoFlags()
	rest, err := parse(fs, args)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("unexpected argument %q", rest[0])
	}
	if err := checkRange("callers", f.Callers, 1, maxCallers); err != nil {
		return nil, err
	}
	if err := checkRange("payload", f.Payload, 0, maxPayload); err != nil {
		return nil, err
	}
	if n := f.Callers * f.Payload; n > maxInFlight {
		return nil, fmt.Errorf("--callers times --payload is %s; it must be at most %s, since all of it may be in memory at once",
			size(uint64(n)), size(maxInFlight))
	}
	if _, _, err := net.SplitHostPort(f.Serve); f.Serve != "" && err != nil {
		return nil, fmt.Errorf("--serve is %q; it must be host:port, such as 127.0.0.1:0", f.Serve)
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

func demoHelp() string {
	fs, _ := newDemoFlags()
	return demoAbout + "\nUsage:\n  grpcpool demo [flags]\n\nFlags:\n" + flagHelp(fs) + "\n" + demoStatus + "\n" + demoNext
}

// runDemo is the command "demo".
func runDemo(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags, err := parseDemoFlags(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		say(stdout, demoHelp())
		return exitOK
	case err != nil:
		complainOfUsage(stderr, "demo", err)
		return exitMisuse
	}

	screen := newScreen(stdout, stderr)
	result, err := showDemo(ctx, flags, screen)
	switch {
	case ctx.Err() != nil:
		say(stderr, "grpcpool demo: interrupted\n")
		return exitInterrupted
	case err != nil:
		complain(stderr, "demo", err.Error())
		return exitFailed
	case screen.err() != nil:
		complain(stderr, "demo", fmt.Sprintf("writing the results: %v", screen.err()))
		return exitFailed
	case !result.Kept:
		return exitFailed
	default:
		return exitOK
	}
}

// showDemo runs the demo and prints its results.
func showDemo(ctx context.Context, flags *demoFlags, screen *screen) (*demo.Result, error) {
	defer screen.clear()
	watcher := demo.Watcher{}
	if screen.live() {
		watcher.Tick = func(p demo.Progress) { screen.status(progressLine(p)) }
	}
	if !flags.json {
		screen.print(demoTitle(flags.Config))
		watcher.Ended = func(p demo.Phase, r *demo.Result) { screen.print(phaseReport(p, r)) }
		watcher.Serving = func(url string) { screen.print("Live page: " + url + "\n") }
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
