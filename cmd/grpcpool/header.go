package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc/metadata"
)

// headerFlags are the metadata of the calls that the command makes by itself.
type headerFlags struct {
	headers listFlag
	read    metadata.MD // by check
}

func (h *headerFlags) register(fs *flag.FlagSet) {
	fs.Var(&h.headers, "header", "`metadata` sent with each call, as \"name: value\", such as \"authorization: Bearer ...\"; \"name: @file\" reads the value from a file; may be repeated")
}

// check reads the flags. Its errors have no values in them, which may be secret.
func (h *headerFlags) check() error {
	h.read = metadata.MD{}
	for _, header := range h.headers {
		name, value, ok := strings.Cut(header, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		switch {
		case !ok:
			return errors.New(`--header must be "name: value"`)
		case !isHeaderName(name):
			return fmt.Errorf("--header: %q is not the name of metadata; it has letters, digits, \"-\", \"_\" and \".\", and does not begin with grpc- or end with -bin", name)
		}
		if file, ok := strings.CutPrefix(value, "@"); ok {
			data, err := os.ReadFile(file) //nolint:gosec // the user chose the file
			if err != nil {
				return fmt.Errorf("--header: %w", err)
			}
			value = strings.TrimSpace(string(data))
		}
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
			return fmt.Errorf("--header: the value of %q has characters that are not printable ASCII", name)
		}
		h.read.Append(name, value)
	}
	return nil
}

func isHeaderName(name string) bool {
	return name != "" && !strings.HasPrefix(name, "grpc-") && !strings.HasSuffix(name, "-bin") &&
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
}

// context returns a context whose calls send the metadata.
func (h *headerFlags) context(ctx context.Context) context.Context {
	return metadata.NewOutgoingContext(ctx, h.read)
}
