package main

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

// listFlag is a flag that may be given several times.
type listFlag []string

// String implements flag.Value.
func (l *listFlag) String() string { return strings.Join(*l, ",") }

// Set implements flag.Value.
func (l *listFlag) Set(value string) error {
	*l = append(*l, value)
	return nil
}

func newFlagSet(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // what there is to say is said by the command
	return fs
}

// parse reads flags and arguments in any order, and returns the arguments.
func parse(fs *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err //nolint:wrapcheck // it is flag.ErrHelp, or shown to the user as it is
		}
		if fs.NArg() == 0 {
			return rest, nil
		}
		rest = append(rest, fs.Arg(0))
		args = fs.Args()[1:]
	}
}

// flagHelp describes the flags of fs, in the alphabet's order.
func flagHelp(fs *flag.FlagSet) string {
	var text strings.Builder
	fs.VisitAll(func(f *flag.Flag) {
		kind, says := flag.UnquoteUsage(f)
		name := "--" + f.Name
		if kind != "" {
			name += " <" + kind + ">"
		}
		fmt.Fprintf(&text, "  %s\n      %s", name, strings.ReplaceAll(says, "\n", "\n      "))
		if f.DefValue != "" && f.DefValue != "false" {
			fmt.Fprintf(&text, "; default %s", f.DefValue)
		}
		text.WriteString("\n")
	})
	return text.String()
}
