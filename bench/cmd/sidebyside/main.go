// Command sidebyside measures this library and its peers in one process and writes
// the report: raw results for benchstat, tables and pictures.
//
//	sidebyside                      # what is not long, some minutes; writes results/
//	sidebyside -only unary,burst    # some scenarios; the report keeps the others' results
//	sidebyside -quick               # that everything runs; writes nowhere
//	sidebyside -only unary -peers plain -profile /tmp/p    # what pprof reads
//	sidebyside -report              # the tables again, from the raw results
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/davidwartell/go-grpcpool/bench/scenario"
)

type options struct {
	quick, report bool
	rounds        int
	only, peers   []string
	out, profile  string

	clients                int
	spread, settle, window time.Duration
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "sidebyside:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if slices.Equal(os.Args[1:], []string{scenario.ServeArgument}) {
		return scenario.Serve(ctx, os.Stdin, os.Stdout)
	}
	o, err := parse()
	if err != nil {
		return err
	}
	if o.report {
		return writeReport(o.out)
	}
	if o.quick {
		dir, err := os.MkdirTemp("", "sidebyside")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir) //nolint:errcheck // what is left is in the temporary directory
		o.out, o.rounds = dir, 1
	}
	endProfiles, err := profile(o.profile)
	if err != nil {
		return err
	}
	err = measure(ctx, o)
	if perr := endProfiles(); err == nil {
		err = perr
	}
	if err != nil {
		return err
	}
	return writeReport(o.out)
}

func parse() (options, error) {
	var o options
	var only, names string
	flag.BoolVar(&o.quick, "quick", false, "run everything for a moment and write nothing")
	flag.BoolVar(&o.report, "report", false, "write the tables again from the raw results")
	flag.IntVar(&o.rounds, "rounds", 10, "how many `rounds`")
	flag.StringVar(&only, "only", "", "`scenarios`, separated by commas (default: all)")
	flag.StringVar(&names, "peers", "", "`peers`, separated by commas (default: all)")
	flag.StringVar(&o.out, "out", "results", "`directory` of the report")
	flag.StringVar(&o.profile, "profile", "", "`directory` for CPU, allocation, mutex and block profiles (default: none)")
	flag.IntVar(&o.clients, "clients", 0, "how many `clients` the scenarios idle and open have at once (default: 1000, and 5000)")
	flag.DurationVar(&o.spread, "spread", 0, "over how `long` those of idle are opened (default 10s; 1ns: as fast as it goes)")
	flag.DurationVar(&o.settle, "settle", 0, "for how `long` they are left alone after that before anything is measured (default 35s)")
	flag.DurationVar(&o.window, "window", 0, "for how `long` they are measured (default 30s)")
	flag.Parse()
	if flag.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if o.rounds < 1 {
		return o, fmt.Errorf("-rounds is %d, want 1 or more", o.rounds)
	}
	if o.clients < 0 || o.spread < 0 || o.settle < 0 || o.window < 0 {
		return o, errors.New("-clients, -spread, -settle and -window cannot be negative")
	}
	if names != "" {
		o.peers = strings.Split(names, ",")
	}
	if only == "" {
		return o, nil
	}
	o.only = strings.Split(only, ",")
	for _, name := range o.only {
		if !slices.ContainsFunc(scenario.All(), func(s *scenario.Scenario) bool { return s.Name == name }) {
			return o, fmt.Errorf("-only: there is no scenario %q", name)
		}
	}
	return o, nil
}
