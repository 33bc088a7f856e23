package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"
)

// listFlag is a flag that may be repeated.
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
	fs.SetOutput(io.Discard) // the command reports errors itself
	return fs
}

// parse reads flags and arguments in any order, and returns the arguments.
func parse(fs *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := fs.Parse(args); err != nil {
			return nil, twoDashes(err)
		}
		if fs.NArg() == 0 {
			return rest, nil
		}
		rest = append(rest, fs.Arg(0))
		args = fs.Args()[1:]
	}
}

// twoDashes writes flags as our help does: package flag writes them with one dash.
func twoDashes(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return err
	}
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		return fmt.Errorf("unknown flag --%s", name)
	}
	text = strings.Replace(text, "for flag -", "for --", 1)
	text = strings.Replace(text, "flag needs an argument: -", "missing value of --", 1)
	return errors.New(text)
}

// firstOf returns the first error that is not nil, so that the user reads one line.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func checkRange[T int | time.Duration](name string, value, least, most T) error {
	if value < least || value > most {
		return fmt.Errorf("--%s is %s; it must be from %s to %s", name, plainly(value), plainly(least), plainly(most))
	}
	return nil
}

// plainly writes 1h for 1h0m0s.
func plainly(value any) string {
	text := fmt.Sprint(value)
	if _, ok := value.(time.Duration); !ok {
		return text
	}
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// helpWidth is the number of columns that help fits in.
const helpWidth = 80

// flagHelp describes the flags of fs, alphabetically.
func flagHelp(fs *flag.FlagSet) string {
	var text strings.Builder
	fs.VisitAll(func(f *flag.Flag) {
		kind, help := flag.UnquoteUsage(f)
		name := "--" + f.Name
		if kind != "" {
			name += " <" + kind + ">"
		}
		if f.DefValue != "" && f.DefValue != "false" {
			help += " (default " + defaultOf(f) + ")"
		}
		fmt.Fprintf(&text, "  %s\n%s", name, indented(help, "      "))
	})
	return text.String()
}

func defaultOf(f *flag.Flag) string {
	if getter, ok := f.Value.(flag.Getter); ok {
		return plainly(getter.Get())
	}
	return f.DefValue
}

// indented breaks text into lines that fit the width of help.
func indented(text, indent string) string {
	var out strings.Builder
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(indent)+len(line)+1+len(word) > helpWidth {
			out.WriteString(indent + line + "\n")
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	out.WriteString(indent + line + "\n")
	return out.String()
}
