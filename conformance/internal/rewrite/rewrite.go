// Package rewrite turns the grpc.NewClient of a Go file into another function.
package rewrite

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"slices"
	"strconv"
)

// Function is a function of a package.
type Function struct {
	Package string // its import path
	Name    string
}

// Calls rewrites the Go file src: every mention of from, called or not, becomes
// to. It returns how many there were; without any it returns src. Lines keep their
// numbers, so that a failing test points at the original's.
//
// A mention of an unexported package, from within it, is not found: Calls looks
// for what an import makes reachable.
func Calls(src []byte, from, to Function) ([]byte, int, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "", src, parser.ParseComments)
	if err != nil {
		return nil, 0, fmt.Errorf("rewrite: %w", err)
	}
	f := &edited{fset: fset, file: file, src: src}
	imported := f.importOf(from.Package)
	if imported == nil {
		return src, 0, nil
	}
	alias := f.unused(path.Base(to.Package))
	mentions, others := f.mentions(imported, from)
	if mentions == nil {
		return src, 0, nil
	}
	for _, m := range mentions {
		f.replace(m, alias+"."+to.Name)
	}
	newImport := alias + " " + strconv.Quote(to.Package)
	switch {
	case others:
		f.replace(imported, f.text(imported)+"; "+f.keyword(imported)+newImport)
	default:
		f.replace(imported, newImport)
	}
	return f.apply(), len(mentions), nil
}

// edited is a file and what is to be replaced in it.
type edited struct {
	fset  *token.FileSet
	file  *ast.File
	src   []byte
	edits []edit
}

type edit struct {
	from, to int
	text     string
}

// importOf is the import of the package, nil without one that names anything.
func (f *edited) importOf(pkg string) *ast.ImportSpec {
	for _, spec := range f.file.Imports {
		if imported, err := strconv.Unquote(spec.Path.Value); err == nil && imported == pkg {
			if spec.Name == nil || spec.Name.Name != "_" {
				return spec
			}
		}
	}
	return nil
}

// mentions are the places where the file mentions from. others reports whether it
// mentions anything else of that package, which then must stay imported.
func (f *edited) mentions(imported *ast.ImportSpec, from Function) (found []ast.Node, others bool) {
	if imported.Name != nil && imported.Name.Name == "." {
		return f.bareMentions(from.Name), true // nobody can say what else is used
	}
	name := path.Base(from.Package)
	if imported.Name != nil {
		name = imported.Name.Name
	}
	ast.Inspect(f.file, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, ok := selector.X.(*ast.Ident)
		if !ok || pkg.Name != name || pkg.Obj != nil { // an Obj: something local of that name
			return true
		}
		if selector.Sel.Name == from.Name {
			found = append(found, selector)
		} else {
			others = true
		}
		return true
	})
	return found, others
}

// bareMentions are those of a name that a dot import brings. They are among the
// identifiers that the file itself does not declare.
func (f *edited) bareMentions(name string) (found []ast.Node) {
	for _, ident := range f.file.Unresolved {
		if ident.Name == name {
			found = append(found, ident)
		}
	}
	return found
}

// keyword is what a second import needs before it where spec stands.
func (f *edited) keyword(spec *ast.ImportSpec) string {
	for _, d := range f.file.Decls {
		if g, ok := d.(*ast.GenDecl); ok && slices.Contains(g.Specs, ast.Spec(spec)) && g.Lparen == token.NoPos {
			return "import "
		}
	}
	return ""
}

// unused is a name that occurs nowhere in the file.
func (f *edited) unused(base string) string {
	taken := make(map[string]bool)
	ast.Inspect(f.file, func(n ast.Node) bool {
		if ident, ok := n.(*ast.Ident); ok {
			taken[ident.Name] = true
		}
		return true
	})
	for taken[base] {
		base += "_"
	}
	return base
}

func (f *edited) replace(n ast.Node, text string) {
	f.edits = append(f.edits, edit{from: f.offset(n.Pos()), to: f.offset(n.End()), text: text})
}

func (f *edited) text(n ast.Node) string {
	return string(f.src[f.offset(n.Pos()):f.offset(n.End())])
}

func (f *edited) offset(p token.Pos) int { return f.fset.PositionFor(p, false).Offset }

func (f *edited) apply() []byte {
	slices.SortFunc(f.edits, func(a, b edit) int { return a.from - b.from })
	var out bytes.Buffer
	done := 0
	for _, e := range f.edits {
		out.Write(f.src[done:e.from])
		out.WriteString(e.text)
		done = e.to
	}
	out.Write(f.src[done:])
	return out.Bytes()
}
