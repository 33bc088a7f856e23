package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/load"
	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/ping"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

const benchAbout = `grpcpool bench puts load on a gRPC server, over a plain channel and over a pool in
turn, and shows beside each other how many calls a second they make, how long calls
take, how many connections they need, and where the server's limit on streams bites.

It is load: use it on servers of your own. By default it calls the health service;
--method calls any unary method that the server's reflection service describes.
`

const benchStatus = `Exit status:
  0    both ways were measured
  1    the server could not be reached, or every call failed
  2    a flag is wrong
  130  interrupted (Ctrl-C)
`

const benchNext = `Examples:
  grpcpool bench --plaintext --callers 1000 localhost:50051
  grpcpool bench --ca ca.pem --method shop.v1.Orders/Get --data '{"id": 7}' api:443
  grpcpool bench --json --duration 30s api:443 | jq .results
  grpcpool bench --svg bench.svg --callers 1000 api:443
`

// benchFlags is bench's command line.
type benchFlags struct {
	targetFlags
	load.Config

	target   string
	method   string
	data     string
	maxConns int
	json     bool
	svg      string
}

func newBenchFlags() (*flag.FlagSet, *benchFlags) {
	f := &benchFlags{}
	f.Turns = 2
	fs := newFlagSet("bench")
	f.register(fs)
	fs.IntVar(&f.Callers, "callers", 100, "how many `callers` call at the same time, each without a pause (1 to 100000)")
	fs.DurationVar(&f.Duration, "duration", 5*time.Second, "how long each way is measured (100ms to 1h)")
	fs.DurationVar(&f.Timeout, "timeout", 20*time.Second, "of one call (1ms to 1h)")
	fs.StringVar(&f.method, "method", "", "unary `method` to call, package.Service/Method; without it the health check")
	fs.StringVar(&f.data, "data", "", "the method's request, as a `message` in JSON; @file reads it from a file")
	fs.IntVar(&f.maxConns, "max-connections", 10, "`connections` of the pool to one address, at most (1 to 1000)")
	fs.BoolVar(&f.json, "json", false, "print one JSON document at the end on stdout, and nothing else there")
	fs.StringVar(&f.svg, "svg", "", "also draw the latencies into this `file`, as SVG; it is written when there are\nresults, and until then left as it was")
	return fs, f
}

// parseBenchFlags returns flag.ErrHelp if help is asked for.
func parseBenchFlags(args []string) (*benchFlags, error) {
	fs, f := newBenchFlags()
	rest, err := parse(fs, args)
	switch {
	case err != nil:
		return nil, err
	case len(rest) != 1:
		return nil, fmt.Errorf("takes one argument, the server, got %q", rest)
	case f.data != "" && f.method == "":
		return nil, errors.New("--data wants --method: whose message is it?")
	}
	f.target = rest[0]
	if err := errors.Join(
		checkRange("callers", f.Callers, 1, 100_000),
		checkRange("max-connections", f.maxConns, 1, 1000),
		checkRange("duration", f.Duration, minDuration, maxDuration),
		checkRange("timeout", f.Timeout, time.Millisecond, time.Hour),
	); err != nil {
		return nil, err
	}
	if len(f.data) > 1 && f.data[0] == '@' {
		data, err := os.ReadFile(f.data[1:])
		if err != nil {
			return nil, fmt.Errorf("--data: %w", err)
		}
		f.data = string(data)
	}
	return f, f.check()
}

func benchHelp() string {
	fs, _ := newBenchFlags()
	return benchAbout + "\nUsage:\n  grpcpool bench [flags] <server>\n\n" +
		"The server is host:port, or a gRPC target such as dns:///host:port or unix:///path.\n\n" +
		"Flags:\n" + flagHelp(fs) + "\n" + benchStatus + "\n" + benchNext
}

// benchDocument is what --json prints.
type benchDocument struct {
	Target  string        `json:"target"`
	Method  string        `json:"method"`
	Callers int           `json:"callers"`
	Limit   *uint32       `json:"streams_per_connection"` // null: the server sets none
	Results []load.Result `json:"results"`
}

// runBench is the command "bench".
func runBench(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags, err := parseBenchFlags(args)
	var factory *grpcpool.Factory
	if err == nil {
		factory, err = flags.factory(flags.target, grpcpool.WithPing(ping.Alive), //nolint:contextcheck // checks names of ports only
			grpcpool.WithDialOptions(scale.WithMaxConnections(flags.maxConns)))
	}
	var picture *pictureFile
	if err == nil {
		picture, err = openPicture(flags.svg)
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		say(stdout, benchHelp())
		return exitOK
	case err != nil:
		say(stderr, fmt.Sprintf("grpcpool bench: %v; see \"grpcpool bench --help\"\n", err))
		return exitMisuse
	}
	defer picture.close()
	screen := newScreen(stdout, stderr)
	err = showBench(ctx, flags, factory, screen, picture)
	switch {
	case ctx.Err() != nil:
		say(stderr, "grpcpool bench: interrupted\n")
		return exitInterrupted
	case err != nil:
		say(stderr, fmt.Sprintf("grpcpool bench: %s\n", ping.Explain(err)))
		return exitFailed
	case screen.err() != nil:
		say(stderr, fmt.Sprintf("grpcpool bench: writing the results: %v\n", screen.err()))
		return exitFailed
	}
	return exitOK
}

// showBench measures and puts what comes of it on the screen.
func showBench(ctx context.Context, flags *benchFlags, factory *grpcpool.Factory, screen *screen, picture *pictureFile) error {
	defer screen.clear()
	doc := &benchDocument{Target: flags.target, Callers: flags.Callers}
	method, err := findMethod(ctx, flags, factory, doc)
	if err != nil {
		return err
	}
	doc.Method = method.Path
	if !flags.json {
		screen.print(benchTitle(doc, flags.Duration))
	}
	ways := []load.Way{flags.plainWay(), flags.poolWay(factory)}
	doc.Results, err = load.Run(ctx, method, ways, flags.Config, func(p load.Progress) { screen.status(benchProgress(p)) })
	if err != nil {
		return err
	}
	if !flags.json {
		screen.print(benchReport(doc))
	} else {
		text, err := json.MarshalIndent(doc, "", "  ")
		if err != nil {
			return fmt.Errorf("bench: %w", err)
		}
		screen.print(string(text) + "\n")
	}
	if err := picture.write(benchPicture(doc, flags.Duration)); err != nil {
		return err
	}
	for _, r := range doc.Results {
		if r.Calls == r.Failed {
			return fmt.Errorf("over the %s every call failed", r.Way)
		}
	}
	return nil
}

// findMethod also learns the server's limit on streams.
func findMethod(ctx context.Context, flags *benchFlags, factory *grpcpool.Factory, doc *benchDocument) (load.Method, error) {
	ctx, cancel := context.WithTimeout(ctx, flags.Timeout)
	defer cancel()
	conn, inside, err := factory.NewInspectedConnection(ctx)
	if err != nil {
		return load.Method{}, err
	}
	defer conn.Close() //nolint:errcheck // it has told what it had to tell
	for _, s := range inside.Snapshot().Subchannels {
		for _, c := range s.Connections {
			if c.Limit != scale.Unlimited {
				doc.Limit = &c.Limit
			}
		}
	}
	if flags.method == "" {
		return load.HealthCheck(), nil
	}
	return load.Find(ctx, conn, flags.method, flags.data)
}

// plainWay is a channel as grpc-go makes it.
func (f *benchFlags) plainWay() load.Way {
	return load.Way{
		Name: "plain channel",
		Conn: func(context.Context) (grpc.ClientConnInterface, func(), error) {
			creds := insecure.NewCredentials()
			if !f.plaintext {
				config, err := f.tlsConfig()
				if err != nil {
					return nil, nil, err
				}
				creds = credentials.NewTLS(config)
			}
			opts := []grpc.DialOption{grpc.WithTransportCredentials(creds)}
			if f.authority != "" {
				opts = append(opts, grpc.WithAuthority(f.authority))
			}
			cc, err := grpc.NewClient(f.target, opts...)
			if err != nil {
				return nil, nil, fmt.Errorf("bench: %w", err)
			}
			return cc, func() { _ = cc.Close() }, nil // a failure to close changes no figure
		},
		Look: func() (connections, waiting int) { return 1, -1 }, // pick_first
	}
}

func (f *benchFlags) poolWay(factory *grpcpool.Factory) load.Way {
	var pool *shared.Pool
	return load.Way{
		Name: "pool",
		Conn: func(context.Context) (grpc.ClientConnInterface, func(), error) {
			pool = shared.New(factory, 0)
			return pool, func() { _ = pool.Close() }, nil //nolint:contextcheck // closing has its own time; that it failed changes no figure
		},
		Look: func() (connections, waiting int) {
			for _, s := range pool.Stats().Current.Subchannels {
				connections += len(s.Connections)
				waiting += s.Waiters
			}
			return connections, waiting
		},
	}
}
