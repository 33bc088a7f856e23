// Command grpcpool demonstrates and exercises go-grpcpool, a pool of gRPC client
// connections.
//
//	grpcpool demo                           see the pool at work, in ten seconds
//	grpcpool ping api.example.com:443       see what a gRPC server is like
//	grpcpool bench api.example.com:443      compare a plain channel with a pool
//	grpcpool proxy --listen unix:///run/api.sock --to api.example.com:443
//	                                        share a pool among processes
//
// "grpcpool help <command>" describes a command and its flags.
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
	exitFailed      = 1   // the command failed, or the demo found a broken promise
	exitMisuse      = 2   // unknown command, bad flag
	exitInterrupted = 130 // as shells report SIGINT
)

// command is a subcommand. run is passed the arguments that follow its name.
type command struct {
	name    string
	summary string
	run     func(ctx context.Context, args []string, stdout, stderr io.Writer) int
}

func commands() []command {
	return []command{
		{"demo", "run a pool against a local server and check what it promises", runDemo},
		{"ping", "inspect a gRPC server, and ping it once a second", runPing},
		{"bench", "load a server over a plain channel and over a pool, and compare", runBench},
		{"proxy", "share a pool among processes that cannot keep connections open", runProxy},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the subcommand that args name, and returns the exit status.
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
	say(stderr, fmt.Sprintf("grpcpool: unknown command %q; \"grpcpool help\" lists the commands\n", name))
	return exitMisuse
}

// say writes help or an error, escaped, since it may contain a server's text.
func say(w io.Writer, text string) {
	_, _ = io.WriteString(w, reason.Escape(text)) // a failure could not be reported either
}

// complain writes an error of a command as one line. It leaves out the name of the package
// that the error comes from.
func complain(w io.Writer, command, text string) {
	text = reason.OneLine(text)
	for before := ""; before != text; {
		before = text
		for _, name := range []string{"grpcpool", "identity", "load", command} {
			text = strings.TrimPrefix(text, name+": ")
		}
	}
	say(w, fmt.Sprintf("grpcpool %s: %s\n", command, text))
}

// complainOfUsage is complain for a mistake on the command line.
func complainOfUsage(w io.Writer, command string, err error) {
	complain(w, command, fmt.Sprintf("%v; see \"grpcpool %s --help\"", err, command))
}

func usage() string {
	var text strings.Builder
	text.WriteString("grpcpool demonstrates and exercises go-grpcpool, a pool of gRPC connections.\n\n" +
		"Usage:\n  grpcpool <command> [flags]\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(&text, "  %-8s %s\n", c.name, c.summary)
	}
	text.WriteString("\n\"grpcpool help <command>\" describes a command. Start with \"grpcpool demo\".\n")
	return text.String()
}
