package suite

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/davidwartell/go-grpcpool/conformance/internal/rewrite"
)

// listed is what go list tells of a package.
type listed struct {
	ImportPath   string   `json:"ImportPath"`
	Name         string   `json:"Name"`
	Dir          string   `json:"Dir"`
	GoFiles      []string `json:"GoFiles"`
	TestGoFiles  []string `json:"TestGoFiles"`
	XTestGoFiles []string `json:"XTestGoFiles"`
	Imports      []string `json:"Imports"`
	TestImports  []string `json:"TestImports"`
	XTestImports []string `json:"XTestImports"`
	Deps         []string `json:"Deps"`
}

// Choice is which of the module's packages run, and what of them is rewritten.
type Choice struct {
	Packages  []string       // with a test that comes to something rewritten, as "./test"
	Untouched int            // packages with tests that do not
	Mentions  map[string]int // rewritten, by package and kind of files
	Refused   []string       // what cannot be rewritten, and why
}

// Choose finds what can be rewritten, and writes the overlay.
//
// A file can be rewritten when its package may import To's. External test packages
// always may. A package that To's own depends on may not, nor may its tests inside
// the package. Other tests inside a package may, and so may the helpers: packages
// that only tests import. What the module itself calls stays: its control channels
// are no business of the tests.
func (w *Workspace) Choose(ctx context.Context) (*Choice, error) {
	all, err := w.list(ctx)
	if err != nil {
		return nil, err
	}
	c := &chooser{
		workspace: w,
		all:       all,
		overlay:   make(map[string]string),
		changed:   make(map[string]bool),
		choice:    &Choice{Mentions: make(map[string]int)},
	}
	for _, path := range slices.Sorted(maps.Keys(all)) {
		if c.tested(path) {
			if err := c.rewrite(all[path]); err != nil {
				return nil, err
			}
		}
	}
	c.pick()
	overlay, err := json.Marshal(map[string]any{"Replace": c.overlay})
	if err != nil {
		return nil, err
	}
	return c.choice, os.WriteFile(w.overlay(), overlay, 0o600)
}

// list asks for every package of the module, and To's.
func (w *Workspace) list(ctx context.Context) (map[string]*listed, error) {
	out, err := w.command(ctx, w.build("list", "-json=ImportPath,Name,Dir,GoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports,Deps", "./...", w.config.To.Package)...)
	if err != nil {
		return nil, err
	}
	// What only tests need is found, and written to go.mod, by this.
	if _, err := w.command(ctx, w.build("list", "-test", "-deps", "./...")...); err != nil {
		return nil, err
	}
	all := make(map[string]*listed)
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("suite: go list: %w", err)
		}
		all[p.ImportPath] = &p
	}
}

type chooser struct {
	workspace *Workspace
	all       map[string]*listed
	overlay   map[string]string
	changed   map[string]bool // the groups that were rewritten: kind and package
	choice    *Choice
}

// tested reports whether a package is of the tested module.
func (c *chooser) tested(path string) bool {
	module := c.workspace.config.Tested.Path
	return path == module || strings.HasPrefix(path, module+"/")
}

// group is files of a package that are compiled together.
type group struct {
	kind     string
	files    []string
	obstacle string // why they may not be rewritten, empty if they may
}

// rewrite rewrites what may be of a package.
func (c *chooser) rewrite(p *listed) error {
	to := c.workspace.config.To.Package
	var below string
	if slices.Contains(c.all[to].Deps, p.ImportPath) {
		below = to + " depends on the package"
	}
	groups := []group{
		{kind: "tests", files: p.XTestGoFiles},
		{kind: "tests inside", files: p.TestGoFiles, obstacle: below},
	}
	if c.isHelper(p) {
		groups = append(groups, group{kind: "helper", files: p.GoFiles, obstacle: cmp.Or(below, c.cycle(p))})
	}
	for _, g := range groups {
		n, err := c.rewriteFiles(p, g)
		switch {
		case err != nil:
			return err
		case n > 0 && g.obstacle != "":
			c.choice.Refused = append(c.choice.Refused, fmt.Sprintf("%s (%s): %s", c.relative(p.ImportPath), g.kind, g.obstacle))
		case n > 0:
			c.choice.Mentions[g.kind] += n
			c.changed[g.kind+" "+p.ImportPath] = true
		}
	}
	return nil
}

// rewriteFiles counts the mentions in a group, and rewrites them unless there is an
// obstacle.
func (c *chooser) rewriteFiles(p *listed, g group) (mentions int, err error) {
	w := c.workspace
	for _, name := range g.files {
		original := filepath.Join(p.Dir, name)
		src, err := os.ReadFile(original) //nolint:gosec // go list named it
		if err != nil {
			return 0, err
		}
		out, n, err := rewrite.Calls(src, w.config.From, w.config.To)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", original, err)
		}
		mentions += n
		if n == 0 || g.obstacle != "" {
			continue
		}
		replacement := filepath.Join(w.scratch, strconv.Itoa(len(c.overlay))+"_"+name)
		if err := os.WriteFile(replacement, out, 0o600); err != nil { //nolint:gosec // its own folder
			return 0, err
		}
		c.overlay[original] = replacement
	}
	return mentions, nil
}

// isHelper reports whether only tests, and other helpers, import a package.
func (c *chooser) isHelper(p *listed) bool {
	if p.Name == "main" {
		return false
	}
	byTests := false
	for path, other := range c.all {
		if !c.tested(path) {
			continue
		}
		if slices.Contains(other.Imports, p.ImportPath) && !c.isHelper(other) {
			return false
		}
		byTests = byTests || slices.Contains(other.Imports, p.ImportPath) ||
			slices.Contains(other.TestImports, p.ImportPath) || slices.Contains(other.XTestImports, p.ImportPath)
	}
	return byTests
}

// cycle is why a helper may not be rewritten: a package below To's has tests inside
// that come to the helper.
func (c *chooser) cycle(helper *listed) string {
	to := c.all[c.workspace.config.To.Package]
	for _, path := range to.Deps {
		if p, ok := c.all[path]; ok && c.reaches(p.TestImports, helper.ImportPath) {
			return "the tests inside " + c.relative(path) + " come to it, and " + to.ImportPath + " depends on that package"
		}
	}
	return ""
}

func (c *chooser) reaches(imports []string, path string) bool {
	return slices.ContainsFunc(imports, func(i string) bool {
		return i == path || c.all[i] != nil && slices.Contains(c.all[i].Deps, path)
	})
}

// pick chooses the packages whose tests come to something rewritten.
func (c *chooser) pick() {
	for _, path := range slices.Sorted(maps.Keys(c.all)) {
		p := c.all[path]
		if !c.tested(path) || len(p.TestGoFiles)+len(p.XTestGoFiles) == 0 {
			continue
		}
		if c.changed["tests "+path] || c.changed["tests inside "+path] || c.comesToHelper(p) {
			c.choice.Packages = append(c.choice.Packages, c.relative(path))
		} else {
			c.choice.Untouched++
		}
	}
}

func (c *chooser) comesToHelper(p *listed) bool {
	for name := range c.changed {
		if helper, ok := strings.CutPrefix(name, "helper "); ok && c.reaches(slices.Concat(p.TestImports, p.XTestImports), helper) {
			return true
		}
	}
	return false
}

// relative is a package's path as from the module's root.
func (c *chooser) relative(path string) string {
	rest := strings.TrimPrefix(path, c.workspace.config.Tested.Path)
	if rest == "" {
		return "."
	}
	return "." + rest
}
