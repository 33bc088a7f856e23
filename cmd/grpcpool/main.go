// Command grpcpool shows and tries out go-grpcpool, a pool of gRPC client
// connections.
//
//	go run github.com/davidwartell/go-grpcpool/cmd/grpcpool demo
//
// "grpcpool help" lists its commands.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/davidwartell/go-grpcpool/internal/reason"
)

// Exit statuses.
const (
	exitOK          = 0
	exitFailed      = 1   // a promise did not hold, or the command could not do its work
	exitMisuse      = 2   // unknown command, bad flag
	exitInterrupted = 130 // as shells report SIGINT
)

// command is a subcommand. Its run gets the arguments after its name.
type command struct {
	name    string
	summary string
	run     func(ctx context.Context, args []string, stdout, stderr io.Writer) int
}

func commands() []command {
	return []command{
		{"demo", "run a pool against a server of its own and check what it promises", runDemo},
		{"ping", "look at a gRPC server from outside and ping it once a second", runPing},
		{"bench", "put load on a server, over a plain channel and a pool in turn", runBench},
		{"proxy", "let programs that cannot hold connections share those of a pool", runProxy},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for the clean end
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run finds and runs the subcommand that args begin with, and returns the exit
// status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		say(stderr, usage())
		return exitMisuse
	}
	name, rest := args[0], args[1:]
	switch name {
	case "help", "-h", "-help", "--help":
		if len(rest) == 0 {
			say(stdout, usage())
			return exitOK
		}
		name, rest = rest[0], []string{"--help"}
	}
	for _, c := range commands() {
		if c.name == name {
			return c.run(ctx, rest, stdout, stderr)
		}
	}
	say(stderr, fmt.Sprintf("grpcpool: there is no command %q; \"grpcpool help\" lists those there are\n", name))
	return exitMisuse
}

// say writes help or an error, whose words may be a server's. That it cannot be
// written cannot be said either.
func say(w io.Writer, text string) {
	_, _ = io.WriteString(w, reason.Escape(text))
}

func usage() string {
	var text strings.Builder
	text.WriteString("grpcpool shows and tries out go-grpcpool, a pool of gRPC client connections.\n\n" +
		"Usage:\n  grpcpool <command> [flags]\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(&text, "  %-8s %s\n", c.name, c.summary)
	}
	text.WriteString("\n\"grpcpool help <command>\" tells more about a command. Begin with \"grpcpool demo\".\n")
	return text.String()
}
