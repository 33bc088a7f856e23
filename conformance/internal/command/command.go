// Package command is what this module's commands have in common.
package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// The exit codes.
const (
	passed   = 0
	failed   = 1 // the tests did
	unusable = 2 // the command could not do its work
)

// Run runs a command until it ends or is interrupted, and returns its exit code. The
// command says whether the tests failed, or why it could not do its work.
func Run(name string, args []string, stderr io.Writer, command func(ctx context.Context, args []string) (bool, error)) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch bad, err := command(ctx, args); {
	case errors.Is(err, flag.ErrHelp): // the flags were printed
		return passed
	case err != nil:
		_, _ = fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return unusable
	case bad:
		return failed
	}
	return passed
}
