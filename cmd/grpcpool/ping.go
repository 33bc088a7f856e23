package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/ping"
	"github.com/davidwartell/go-grpcpool/shared"
)

const pingAbout = `grpcpool ping is ping for a gRPC server.

It makes one connection to see what the server is like: its addresses, TLS, its
certificate, whether it asks for one, how many streams it allows on a connection,
what it does about PINGs. Then it calls the health service through a pool, once a
second, until it is interrupted or --count is reached. A server without the health
service answers too. When something fails it says why, and what to do.
`

const pingStatus = `Exit status:
  0  a ping was answered
  1  none was
  2  a flag is wrong
`

const pingNext = `Examples:
  grpcpool ping --ca ca.pem --cert c.pem --key k.pem api.example.com:443
  grpcpool ping --plaintext --count 5 localhost:50051
  grpcpool ping --count 1 --json api.example.com:443 | jq .findings.tls.certificate.expires
`

// probeTimeout is for the one connection that shows what the server is like.
const probeTimeout = 10 * time.Second

// pingFlags is ping's command line.
type pingFlags struct {
	targetFlags
	ping.Config

	target string
	json   bool
}

func newPingFlags() (*flag.FlagSet, *pingFlags) {
	f := &pingFlags{}
	fs := newFlagSet("ping")
	f.register(fs)
	fs.IntVar(&f.Count, "count", 0, "how many `pings`; 0: until interrupted")
	fs.DurationVar(&f.Interval, "interval", time.Second, "from one ping to the next (1ms to 1h)")
	fs.DurationVar(&f.Timeout, "timeout", 5*time.Second, "how long a ping may take, the dial included (1ms to 1h)")
	fs.BoolVar(&f.json, "json", false, "print one JSON document at the end on stdout, and nothing else there")
	return fs, f
}

// parsePingFlags returns flag.ErrHelp if help is asked for.
func parsePingFlags(args []string) (*pingFlags, error) {
	fs, f := newPingFlags()
	rest, err := parse(fs, args)
	switch {
	case err != nil:
		return nil, err
	case len(rest) != 1:
		return nil, fmt.Errorf("takes one argument, the server, got %q", rest)
	}
	f.target = rest[0]
	if err := checkRange("count", f.Count, 0, 1_000_000); err != nil {
		return nil, err
	}
	if err := checkRange("interval", f.Interval, time.Millisecond, time.Hour); err != nil {
		return nil, err
	}
	if err := checkRange("timeout", f.Timeout, time.Millisecond, time.Hour); err != nil {
		return nil, err
	}
	return f, f.check()
}

func pingHelp() string {
	fs, _ := newPingFlags()
	return pingAbout + "\nUsage:\n  grpcpool ping [flags] <server>\n\n" +
		"The server is host:port, or a gRPC target such as dns:///host:port or unix:///path.\n\n" +
		"Flags:\n" + flagHelp(fs) + "\n" + pingStatus + "\n" + pingNext
}

// pingDocument is what --json prints.
type pingDocument struct {
	Target   string         `json:"target"`
	Findings *ping.Findings `json:"findings"`
	Error    string         `json:"error,omitempty"` // why there are not all findings
	Pings    []ping.Ping    `json:"pings"`
	Summary  ping.Summary   `json:"summary"`
}

// runPing is the command "ping".
func runPing(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags, err := parsePingFlags(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		say(stdout, pingHelp())
		return exitOK
	case err != nil:
		say(stderr, fmt.Sprintf("grpcpool ping: %v; see \"grpcpool ping --help\"\n", err))
		return exitMisuse
	}
	factory, err := flags.factory(flags.target, grpcpool.WithPing(ping.Alive)) //nolint:contextcheck // checks names of ports only
	if err != nil {
		say(stderr, fmt.Sprintf("grpcpool ping: %v\n", err))
		return exitMisuse
	}
	screen := newScreen(stdout, stderr)
	doc, err := showPing(ctx, flags, factory, screen)
	if err != nil {
		say(stderr, fmt.Sprintf("grpcpool ping: %v\n", err))
		return exitMisuse
	}
	if flags.json {
		text, err := json.MarshalIndent(doc, "", "  ")
		if err != nil {
			say(stderr, fmt.Sprintf("grpcpool ping: %v\n", err))
			return exitFailed
		}
		screen.print(string(text) + "\n")
	}
	if err := screen.err(); err != nil {
		say(stderr, fmt.Sprintf("grpcpool ping: writing the results: %v\n", err))
		return exitFailed
	}
	if doc.Summary.Answered == 0 {
		return exitFailed
	}
	return exitOK
}

// showPing pings and puts what comes of it on the screen. Its error is of the flags.
func showPing(ctx context.Context, flags *pingFlags, factory *grpcpool.Factory, screen *screen) (*pingDocument, error) {
	doc := &pingDocument{Target: flags.target}
	target := ping.Target{Address: flags.target, Name: flags.authority}
	if !flags.plaintext {
		config, err := flags.tlsConfig()
		if err != nil {
			return nil, err
		}
		target.TLS = config
	}
	probing, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	findings, err := ping.Probe(probing, target)
	doc.Findings = findings
	if err != nil {
		doc.Error = ping.Explain(err)
	}
	show := func(text string) {
		if !flags.json {
			screen.print(text)
		}
	}
	show(findingsReport(doc, flags.mutual()))
	pool := shared.New(factory, 0)
	defer pool.Close() //nolint:errcheck,contextcheck // no lease is out
	doc.Summary = ping.Run(ctx, pool, flags.Config, func(p ping.Ping) {
		if flags.json {
			doc.Pings = append(doc.Pings, p)
		}
		show(pingLine(p))
	})
	show(summaryReport(flags.target, doc.Summary))
	return doc, nil
}
