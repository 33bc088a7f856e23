package suite

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/davidwartell/go-grpcpool/conformance/internal/rewrite"
)

// Program is a module of a program and those of its other modules that make its
// channels.
type Program struct {
	Companions []Module // rewritten too
	Unserved   []string // required modules that cannot be had
	Without    []string // files that need those
}

// PrepareProgram makes a Workspace for a program's module, of which everything is
// rewritten, tests or not: a program does not know what its channels are.
func PrepareProgram(ctx context.Context, c Config, p Program) (*Workspace, error) {
	rewritten := make([]string, 0, len(p.Companions)+1)
	for _, m := range p.Companions {
		copied := &Workspace{config: Config{Tested: m, Cache: c.Cache}, source: cached(c.Cache, m)}
		if err := copied.copySource(); err != nil {
			return nil, fmt.Errorf("suite: copying %s: %w", m.Path, err)
		}
		m.Dir = copied.source
		c.Replaced = append(c.Replaced, m)
		rewritten = append(rewritten, m.Dir)
	}
	w, err := Prepare(ctx, c)
	if err != nil {
		return nil, err
	}
	err = w.untie(ctx, p.Unserved)
	if err == nil {
		err = w.remove(p.Without)
	}
	if err == nil {
		err = w.rewriteAll(append(rewritten, w.source))
	}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func cached(folder string, m Module) string {
	return filepath.Join(folder, strings.ReplaceAll(m.Path, "/", "+")+"@"+m.Version)
}

// untie takes out of go.mod what refers to folders beside the module, where the
// program's other modules lie in its repository, and what cannot be had.
func (w *Workspace) untie(ctx context.Context, unserved []string) error {
	out, err := w.command(ctx, "mod", "edit", "-json", w.modfile())
	if err != nil {
		return err
	}
	type module struct {
		Path    string `json:"Path"`
		Version string `json:"Version"`
	}
	var mod struct {
		Replace []struct {
			Old module `json:"Old"`
			New module `json:"New"`
		} `json:"Replace"`
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		return fmt.Errorf("suite: go mod edit: %w", err)
	}
	edit := []string{"mod", "edit", "-fmt"}
	for _, path := range unserved {
		edit = append(edit, "-droprequire="+path)
	}
	for _, r := range mod.Replace {
		if !strings.HasPrefix(r.New.Path, ".") {
			continue
		}
		old := r.Old.Path
		if r.Old.Version != "" {
			old += "@" + r.Old.Version
		}
		edit = append(edit, "-dropreplace="+old)
	}
	_, err = w.command(ctx, append(edit, w.modfile())...)
	return err
}

// remove removes files from the copy, those that an earlier run removed too.
func (w *Workspace) remove(names []string) error {
	for _, name := range names {
		if err := os.Remove(filepath.Join(w.source, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// rewriteAll writes an overlay of all the Go files below the folders.
func (w *Workspace) rewriteAll(folders []string) error {
	overlay := make(map[string]string)
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
				return err
			}
			src, err := os.ReadFile(path) //nolint:gosec // a copy of our own
			if err != nil || !bytes.Contains(src, []byte(w.config.From.Name)) {
				return err
			}
			out, n, err := rewrite.Calls(src, w.config.From, w.config.To)
			if err != nil || n == 0 {
				return err
			}
			overlay[path] = filepath.Join(w.scratch, strconv.Itoa(len(overlay))+"_"+filepath.Base(path))
			return os.WriteFile(overlay[path], out, 0o600) //nolint:gosec // a folder of our own
		})
		if err != nil {
			return fmt.Errorf("suite: rewriting: %w", err)
		}
	}
	encoded, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		return err
	}
	return os.WriteFile(w.overlay(), encoded, 0o600)
}

// Resolve has the go command write to go.mod what the packages need, and returns
// those of them that have tests, as "./client". Each pattern must match one.
func (w *Workspace) Resolve(ctx context.Context, patterns []string) ([]string, error) {
	args := append(w.build("list", "-overlay="+w.overlay(), "-test", "-deps"), patterns...)
	if _, err := w.command(ctx, append(args, w.config.To.Package)...); err != nil {
		return nil, err
	}
	tested := "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}"
	out, err := w.command(ctx, append(w.build("list", "-overlay="+w.overlay(), "-f", tested), patterns...)...)
	if err != nil {
		return nil, err
	}
	packages := strings.Fields(string(out))
	for i, path := range packages {
		packages[i] = "." + strings.TrimPrefix(path, w.config.Tested.Path)
	}
	if _, idle := Select(packages, patterns); len(packages) == 0 || len(idle) > 0 {
		return nil, fmt.Errorf("suite: no package of %s that has tests matches %s", w.config.Tested.Path, strings.Join(idle, " "))
	}
	return packages, nil
}

// Download has the go command fetch a module.
func Download(ctx context.Context, path, version string) (Module, error) {
	w := &Workspace{source: os.TempDir()}
	out, err := w.command(ctx, "mod", "download", "-json", path+"@"+version)
	if err != nil {
		return Module{}, err
	}
	m := Module{Path: path, Version: version}
	var downloaded struct {
		Dir string `json:"Dir"`
	}
	if err := json.Unmarshal(out, &downloaded); err != nil {
		return Module{}, fmt.Errorf("suite: go mod download: %w", err)
	}
	m.Dir = downloaded.Dir
	return m, nil
}
