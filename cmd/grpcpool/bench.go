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

const benchAbout = `grpcpool bench loads a gRPC server over a plain channel and over a pool, in
turn, and compares them: calls a second, latency, connections used, and whether
the server's stream limit is the bottleneck.

It puts real load on the server, so use it on your own. It calls the health
service, or with --method any unary method that the server's reflection service
describes. A server that refuses the health check, since it has no such service
or wants a token, is measured too, and the report says how it answered. --header
sends a token.
`

const benchStatus = `Exit status:
  0    both were measured
  1    the server could not be reached, or every call failed
  2    a flag is wrong
  130  interrupted (Ctrl-C)
`

const benchNext = `Examples:
  grpcpool bench --plaintext --callers 1000 localhost:50051
  grpcpool bench --method shop.v1.Orders/Get --data '{"id": 7}' api:443
  grpcpool bench --header 'authorization: @token' --method a.v1.B/Get api:443
  grpcpool bench --json --duration 30s api:443 | jq .results
  grpcpool bench --svg bench.svg --callers 1000 api:443
`

// benchFlags is bench's command line.
type benchFlags struct {
	targetFlags
	headerFlags
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
	f.targetFlags.register(fs)
	f.headerFlags.register(fs)
	fs.IntVar(&f.Callers, "callers", 100, "`number` of concurrent callers, each calling without a pause, 1 to 100000")
	fs.DurationVar(&f.Duration, "duration", 5*time.Second, "how long each of the two is measured, 100ms to 1h")
	fs.DurationVar(&f.Timeout, "timeout", 20*time.Second, "timeout of one call, 1ms to 1h")
	fs.StringVar(&f.method, "method", "", "unary `method` to call, as package.Service/Method (default: the health check)")
	fs.StringVar(&f.data, "data", "", "request `message` of --method, in JSON; @name reads it from a file")
	fs.IntVar(&f.maxConns, "max-connections", 10, "maximum `number` of connections of the pool to one address, 1 to 1000")
	fs.BoolVar(&f.json, "json", false, "print one JSON document on stdout at the end, and nothing else there")
	fs.StringVar(&f.svg, "svg", "", "also draw the latencies as SVG into this `file`; it is replaced only when there are results")
	return fs, f
}

// parseBenchFlags returns flag.ErrHelp if help is requested.
func parseBenchFlags(args []string) (*benchFlags, error) {
	fs, f := newBenchFlags()
	rest, err := parse(fs, args)
	switch {
	case err != nil:
		return nil, err
	case len(rest) != 1:
		return nil, oneServer(rest)
	case f.data != "" && f.method == "":
		return nil, errors.New("--data requires --method")
	}
	f.target = rest[0]
	if err := firstOf(
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
	if f.method != "" {
		if _, _, err := load.Split(f.method); err != nil {
			return nil, err //nolint:wrapcheck // it names the flag
		}
	}
	return f, firstOf(f.targetFlags.check(), f.headerFlags.check())
}

func benchHelp() string {
	fs, _ := newBenchFlags()
	return benchAbout + "\nUsage:\n  grpcpool bench [flags] <server>\n\n" +
		serverHelp +
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
		factory, err = flags.factory(flags.target, grpcpool.WithPing(ping.Alive), //nolint:contextcheck // it only looks up the name of a port
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
		complainOfUsage(stderr, "bench", err)
		return exitMisuse
	}
	defer picture.close()
	screen := newScreen(stdout, stderr)
	err = showBench(flags.context(ctx), flags, factory, screen, picture)
	switch {
	case ctx.Err() != nil:
		say(stderr, "grpcpool bench: interrupted\n")
		return exitInterrupted
	case err != nil:
		complain(stderr, "bench", ping.Explain(err))
		return exitFailed
	case screen.err() != nil:
		complain(stderr, "bench", fmt.Sprintf("writing the results: %v", screen.err()))
		return exitFailed
	}
	return exitOK
}

// showBench measures and prints the results.
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
			return fmt.Errorf("every call over the %s failed", r.Way)
		}
	}
	return nil
}

// findMethod returns the method to call. It also notes the server's stream limit in doc.
func findMethod(ctx context.Context, flags *benchFlags, factory *grpcpool.Factory, doc *benchDocument) (load.Method, error) {
	ctx, cancel := context.WithTimeout(ctx, flags.Timeout)
	defer cancel()
	conn, inspector, err := factory.NewInspectedConnection(ctx)
	if err != nil {
		return load.Method{}, err
	}
	defer conn.Close() //nolint:errcheck // it is not used any more
	for _, s := range inspector.Snapshot().Subchannels {
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

// plainWay is a channel made by grpc-go itself.
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
			return cc, func() { _ = cc.Close() }, nil // a failure to close changes no result
		},
		Sample: func() (connections, waiting int) { return 1, -1 }, // pick_first
	}
}

func (f *benchFlags) poolWay(factory *grpcpool.Factory) load.Way {
	var pool *shared.Pool
	return load.Way{
		Name: "pool",
		Conn: func(context.Context) (grpc.ClientConnInterface, func(), error) {
			pool = shared.New(factory, 0)
			return pool, func() { _ = pool.Close() }, nil //nolint:contextcheck // Close bounds itself; its failure changes no result
		},
		Sample: func() (connections, waiting int) {
			for _, s := range pool.Stats().Current.Subchannels {
				connections += len(s.Connections)
				waiting += s.Waiters
			}
			return connections, waiting
		},
	}
}
