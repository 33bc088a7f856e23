// Package suite runs a module's tests with one function of theirs replaced by
// another.
package suite

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/davidwartell/go-grpcpool/conformance/internal/rewrite"
)

// Module is a module and where it lies.
type Module struct {
	Path    string
	Version string
	Dir     string
}

// Config says what is run.
type Config struct {
	Tested   Module   // whose tests run
	Replaced []Module // what these tests import besides, the one of To among them
	From, To rewrite.Function
	Variable string // the environment variable by which To knows the setting
	Cache    string // a folder that may stay between runs
}

// Workspace is a copy of the tested module, unchanged, and beside it what makes the
// tests other ones: a go.mod and an overlay. The copy's path is the same for every
// run, as the build cache goes by it.
type Workspace struct {
	config    Config
	source    string // the copy
	scratch   string // of this run alone
	test2json string // the program test2json
}

// Prepare makes a Workspace. Close removes what is not worth keeping.
func Prepare(ctx context.Context, c Config) (*Workspace, error) {
	w := &Workspace{
		config: c,
		source: filepath.Join(c.Cache, strings.ReplaceAll(c.Tested.Path, "/", "+")+"@"+c.Tested.Version),
	}
	if err := w.copySource(); err != nil {
		return nil, fmt.Errorf("suite: copying %s: %w", c.Tested.Path, err)
	}
	var err error
	if w.scratch, err = os.MkdirTemp("", "conformance-"); err != nil {
		return nil, fmt.Errorf("suite: %w", err)
	}
	if err := os.Mkdir(w.temporary(), 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("suite: %w", err), w.Close())
	}
	if err := w.writeModule(ctx); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	if w.test2json, err = w.findTest2json(ctx); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// Close removes all but the copy.
func (w *Workspace) Close() error { return os.RemoveAll(w.scratch) }

// findTest2json has the go command build test2json, and tell where it is.
func (w *Workspace) findTest2json(ctx context.Context) (string, error) {
	if _, err := w.command(ctx, "tool", "test2json"); err != nil { // of an empty input
		return "", err
	}
	path, err := w.command(ctx, "tool", "-n", "test2json")
	return strings.TrimSpace(string(path)), err
}

// copySource copies the module as a whole or not at all.
func (w *Workspace) copySource() error {
	if _, err := os.Stat(w.source); err == nil {
		return nil
	}
	if err := os.MkdirAll(w.config.Cache, 0o750); err != nil {
		return err
	}
	partial, err := os.MkdirTemp(w.config.Cache, "partial-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(partial) }()
	tree := filepath.Join(partial, "tree")
	if err := os.CopyFS(tree, os.DirFS(w.config.Tested.Dir)); err != nil {
		return err
	}
	return w.place(tree)
}

// place moves a whole copy to where it belongs, unless another run just did.
func (w *Workspace) place(tree string) error {
	err := os.Rename(tree, w.source)
	if err == nil {
		return nil
	}
	if _, missing := os.Stat(w.source); missing == nil {
		return nil
	}
	return err
}

// writeModule writes a go.mod that requires the replaced modules too, and the sums
// of all. Its other requirements become what is needed, at the version that the
// modules agree on.
func (w *Workspace) writeModule(ctx context.Context) error {
	var sums []byte
	for _, m := range append(slices.Clone(w.config.Replaced), w.config.Tested) {
		sum, err := os.ReadFile(filepath.Join(m.Dir, "go.sum"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		sums = append(sums, sum...)
	}
	if err := os.WriteFile(filepath.Join(w.scratch, "go.sum"), sums, 0o600); err != nil { //nolint:gosec // its own folder
		return err
	}
	mod, err := os.ReadFile(filepath.Join(w.source, "go.mod"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.modfile(), mod, 0o600); err != nil { //nolint:gosec // its own folder
		return err
	}
	edit := []string{"mod", "edit"}
	for _, m := range w.config.Replaced {
		edit = append(edit, "-require="+m.Path+"@"+cmp.Or(m.Version, "v0.0.0"), "-replace="+m.Path+"="+m.Dir)
	}
	_, err = w.command(ctx, append(edit, w.modfile())...)
	return err
}

func (w *Workspace) modfile() string { return filepath.Join(w.scratch, "go.mod") }
func (w *Workspace) overlay() string { return filepath.Join(w.scratch, "overlay.json") }

// temporary is the tests' folder for temporary files, since many of grpc-go's leave
// theirs. Its path is short: Unix sockets are made there.
func (w *Workspace) temporary() string { return filepath.Join(w.scratch, "t") }

// command runs the go command in the copy and returns what it prints.
func (w *Workspace) command(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // its own arguments
	cmd.Dir = w.source
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("suite: go %s: %w\n%s", strings.Join(args[:min(2, len(args))], " "), err, stderr.Bytes())
	}
	return out, nil
}

// build are the arguments of each go command that loads packages.
func (w *Workspace) build(verb string, args ...string) []string {
	return append([]string{verb, "-mod=mod", "-modfile=" + w.modfile()}, args...)
}
