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

It makes one connection to inspect the server: its addresses, TLS version and
certificate, whether it requests a client certificate, how many streams it
allows per connection, and how it reacts to frequent PINGs. Then it calls the
health service through a pool once a second, until interrupted or until --count
is reached. Any answer of the server counts, also that it has no health service
or wants a token (see --header), and each line says what was answered. When
something fails, ping says why and what to do.
`

const pingStatus = `Exit status:
  0  at least one ping was answered
  1  no ping was answered
  2  a flag is wrong
`

const pingNext = `Examples:
  grpcpool ping --ca ca.pem --cert c.pem --key k.pem api.example.com:443
  grpcpool ping --plaintext --count 5 localhost:50051
  grpcpool ping --count 1 --json api.example.com:443 | jq .findings.tls
`

// probeTimeout bounds the inspection of the server.
const probeTimeout = 10 * time.Second

// pingFlags is ping's command line.
type pingFlags struct {
	targetFlags
	headerFlags
	ping.Config

	target string
	json   bool
}

func newPingFlags() (*flag.FlagSet, *pingFlags) {
	f := &pingFlags{}
	fs := newFlagSet("ping")
	f.targetFlags.register(fs)
	f.headerFlags.register(fs)
	fs.IntVar(&f.Count, "count", 0, "`number` of pings; 0 means until interrupted")
	fs.DurationVar(&f.Interval, "interval", time.Second, "time between pings, 1ms to 1h")
	fs.DurationVar(&f.Timeout, "timeout", 5*time.Second, "how long a ping may take, including the dial, 1ms to 1h")
	fs.BoolVar(&f.json, "json", false, "print one JSON document on stdout at the end, and nothing else there")
	return fs, f
}

// parsePingFlags returns flag.ErrHelp if help is requested.
func parsePingFlags(args []string) (*pingFlags, error) {
	fs, f := newPingFlags()
	rest, err := parse(fs, args)
	switch {
	case err != nil:
		return nil, err
	case len(rest) != 1:
		return nil, oneServer(rest)
	}
	f.target = rest[0]
	return f, firstOf(
		checkRange("count", f.Count, 0, 1_000_000),
		checkRange("interval", f.Interval, time.Millisecond, time.Hour),
		checkRange("timeout", f.Timeout, time.Millisecond, time.Hour),
		f.targetFlags.check(),
		f.headerFlags.check(),
	)
}

// oneServer is the error of arguments that are not one server.
func oneServer(args []string) error {
	if len(args) == 0 {
		return errors.New("the server is missing, such as api.example.com:443")
	}
	return fmt.Errorf("unexpected argument %q: give one server", args[1])
}

// serverHelp is in the help of the commands that have a server as their argument.
const serverHelp = "The server is host:port, or a gRPC target such as dns:///host:port or\nunix:///path.\n\n"

func pingHelp() string {
	fs, _ := newPingFlags()
	return pingAbout + "\nUsage:\n  grpcpool ping [flags] <server>\n\n" +
		serverHelp +
		"Flags:\n" + flagHelp(fs) + "\n" + pingStatus + "\n" + pingNext
}

// pingDocument is what --json prints.
type pingDocument struct {
	Target   string         `json:"target"`
	Findings *ping.Findings `json:"findings"`
	Error    string         `json:"error,omitempty"` // why findings are missing
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
		complainOfUsage(stderr, "ping", err)
		return exitMisuse
	}
	factory, err := flags.factory(flags.target, grpcpool.WithPing(ping.Alive)) //nolint:contextcheck // it only looks up the name of a port
	if err != nil {
		complain(stderr, "ping", err.Error())
		return exitMisuse
	}
	screen := newScreen(stdout, stderr)
	doc, err := showPing(ctx, flags, factory, screen)
	if err != nil {
		complain(stderr, "ping", err.Error())
		return exitMisuse
	}
	if flags.json {
		text, err := json.MarshalIndent(doc, "", "  ")
		if err != nil {
			complain(stderr, "ping", err.Error())
			return exitFailed
		}
		screen.print(string(text) + "\n")
	}
	if err := screen.err(); err != nil {
		complain(stderr, "ping", fmt.Sprintf("writing the results: %v", err))
		return exitFailed
	}
	if doc.Summary.Answered == 0 {
		return exitFailed
	}
	return exitOK
}

// showPing pings and prints the results. It returns an error if a flag is wrong.
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
	doc.Summary = ping.Run(flags.context(ctx), pool, flags.Config, func(p ping.Ping) {
		if flags.json {
			doc.Pings = append(doc.Pings, p)
		}
		show(pingLine(p))
	})
	show(summaryReport(flags.target, doc.Summary))
	return doc, nil
}
